"""Pictures, the readable report, and the page made of them."""

import base64
import sys
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import numpy as np
import pytest
from sklearn.metrics import r2_score

from fastsym import TwoLayerNetwork, TwoLayerRegressor, make_two_layer, plotting
from fastsym.diagnostics import Report, advised_samples, near_units, symmetry_test
from fastsym.report import write_report
from fastsym.sources import from_arrays

matplotlib = pytest.importorskip("matplotlib")


@pytest.fixture(scope="module")
def fitted():
    X, Y, network = make_two_layer(40_000, 5, 4, 6, noise=0.2, random_state=0)
    return X, Y, network, TwoLayerRegressor(4).fit(X, Y)


# Pictures


def test_each_takes_axes_and_returns_them(fitted):
    X, Y, network, model = fitted
    for draw, arguments in (
        (plotting.singular_values, (model.diagnostics_,)),
        (plotting.loss_by_pass, (model.refinement_,)),
        (plotting.weights, (network, model.network_)),
        (plotting.outputs, (Y, model.predict(X))),
        (plotting.symmetry, (model.diagnostics_.symmetry,)),
    ):
        ax = plotting.new_axes()
        assert draw(*arguments, ax=ax) is ax
        assert ax.get_title()
        assert ax.get_xlabel()
        assert ax.get_ylabel()
        other = draw(*arguments)
        assert other is not ax
        other.figure.canvas.draw()


def test_singular_values_show_the_gap(fitted):
    diagnostics = fitted[3].diagnostics_
    ax = plotting.singular_values(diagnostics)
    others, null = (line.get_ydata() for line in ax.get_lines())
    np.testing.assert_array_equal(others, diagnostics.singular_values[:-4])
    np.testing.assert_array_equal(null, diagnostics.singular_values[-4:])
    span = ax.patches[0].get_extents().transformed(ax.transData.inverted())
    assert span.y1 / span.y0 == pytest.approx(diagnostics.gap, rel=1e-6)


def test_weights_are_matched(fitted):
    network = fitted[2]
    order = [2, 0, 3, 1]
    shuffled = TwoLayerNetwork(
        3 * network.hidden_weights[order], network.output_weights[:, order] / 3
    )
    for line in plotting.weights(network, shuffled).get_lines()[:2]:
        np.testing.assert_allclose(line.get_xdata(), line.get_ydata(), atol=1e-14)


def test_signs_biases_and_the_linear_part_are_drawn():
    rng = np.random.default_rng(0)
    truth = TwoLayerNetwork(
        rng.standard_normal((3, 2)), rng.standard_normal((1, 3)),
        hidden_intercept=rng.standard_normal(3), output_intercept=[2.0],
        linear_weights=[[1.0, -4.0]],
    )  # fmt: skip
    order = [2, 0, 1]
    same = truth.flipped([1, -1, -1])
    same = TwoLayerNetwork(
        same.hidden_weights[order], same.output_weights[:, order],
        hidden_intercept=same.hidden_intercept[order], output_intercept=same.output_intercept,
        linear_weights=same.linear_weights,
    )  # fmt: skip
    ax = plotting.weights(truth, same)
    for line in ax.get_lines()[:3]:
        np.testing.assert_allclose(line.get_xdata(), line.get_ydata(), atol=1e-12)
    affine = ax.get_lines()[2].get_xdata()
    np.testing.assert_allclose(affine, [0.5, 0.25, -1])
    labels = [line.get_label().partition(", squared error")[0] for line in ax.get_lines()[:3]]
    assert labels == ["(b, W)", "A", "(c, L)"]
    assert "2 wrong signs" in ax.get_lines()[0].get_label()
    # What neither has is not drawn.
    plain = TwoLayerNetwork(truth.hidden_weights, truth.output_weights)
    labels = [text.get_text() for text in plotting.weights(plain, plain).get_legend().get_texts()]
    assert labels == ["W, squared error 0", "A, squared error 0"]


def test_outputs_state_r2(fitted):
    X, Y, _, model = fitted
    weights = np.random.default_rng(0).uniform(0, 3, len(X))
    for weight in (None, weights):
        ax = plotting.outputs(Y, model.predict(X), sample_weight=weight)
        shown = float(ax.get_title().rsplit("=", 1)[1])
        expected = r2_score(
            Y, model.predict(X), multioutput="variance_weighted", sample_weight=weight
        )
        assert shown == pytest.approx(expected, rel=1e-5)
    # All outputs of every sample that is shown.
    values = np.asarray(ax.get_lines()[0].get_ydata()).reshape(-1, 6)
    assert 1900 < values.size <= 2000
    assert {tuple(row) for row in values} <= {tuple(row) for row in Y}
    with pytest.raises(ValueError, match="same shape"):
        plotting.outputs(Y, Y[:, :2])


def test_loss_by_pass_marks_rejected_steps(fitted):
    refinement = fitted[3].refinement_
    ax = plotting.loss_by_pass(refinement)
    np.testing.assert_allclose(
        ax.get_lines()[0].get_ydata(), [e.loss for e in refinement.history if e.accepted]
    )
    assert "pass" in ax.get_xlabel()


def test_one_unit_has_no_gap():
    X, Y, network = make_two_layer(5000, 3, 1, 1, random_state=0)
    model = TwoLayerRegressor(1).fit(X, Y)
    plotting.singular_values(model.diagnostics_).figure.canvas.draw()
    text = str(Report(network, model.diagnostics_))
    assert "distinguishing" not in text


def test_a_missing_matplotlib_names_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r'pip install "fastsym\[plot\]"'):
        plotting.new_axes()


# The readable report


def test_near_units():
    angle = np.radians(5)
    W = np.array([[1, 0, 0], [np.cos(angle), np.sin(angle), 0], [0, 0, 1.0]])
    A = np.array([[1, 0, -2.0], [0, 1, 0.0]])
    (one, two) = near_units(TwoLayerNetwork(W, A))
    assert (one.first, one.second) == (0, 1)
    assert one.hidden_angle == pytest.approx(5)
    assert one.output_angle == pytest.approx(90)
    assert (two.first, two.second) == (0, 2)  # opposite columns of A
    assert two.output_angle == pytest.approx(0, abs=1e-5)
    assert near_units(TwoLayerNetwork(W, A), 3)[0].second == 2
    # With one output the columns of A say nothing.
    assert len(near_units(TwoLayerNetwork(W, A[:1]))) == 1


def test_the_advice_on_samples_is_kept():
    """So many samples as it asks for give about the gap that it aims at."""
    X, Y, _ = make_two_layer(400_000, 8, 8, 8, noise=0.3, hidden_condition=4, random_state=1)
    few = TwoLayerRegressor(8, refine=False).fit(X[:3000], Y[:3000])
    advised, refined = advised_samples(few.diagnostics_, few.network_)
    assert 3000 < advised <= 400_000
    many = TwoLayerRegressor(8, refine=False).fit(X[:advised], Y[:advised])
    assert 1.5 < many.diagnostics_.gap < 6
    assert advised_samples(many.diagnostics_, many.network_)[0] < 4 * advised
    assert refined == -(-10 * 8 * 15 // 8)
    # More samples than features, however few weights there are.
    X, Y, _ = make_two_layer(500, 30, 1, 30, random_state=0)
    one = TwoLayerRegressor(1, refine=False).fit(X, Y)
    assert advised_samples(one.diagnostics_, one.network_)[1] == 31


def test_a_gap_that_is_not_resolved_gives_a_lower_bound_only():
    X, Y, _ = make_two_layer(300, 10, 10, 10, noise=0.3, hidden_condition=10, random_state=0)
    with pytest.warns(UserWarning):
        few = TwoLayerRegressor(10, refine=False).fit(X, Y)
    assert few.diagnostics_.gap < 1.5
    assert "moments alone: more than" in str(Report(few.network_, few.diagnostics_))


def test_report_names_what_is_wrong(fitted):
    X, Y, _, _ = fitted
    model = TwoLayerRegressor(4, refine=False).fit(X, Y)
    text = str(Report(model.network_, model.diagnostics_))
    assert "40,000 samples, 5 features, 4 hidden units, 6 outputs" in text
    assert "refinement: enough" in text
    assert "no two units within 15 degrees" in text
    assert "biased" not in text
    report = Report(model.network_, model.diagnostics_)
    values = model.diagnostics_.singular_values
    assert report.robustness / report.sampling_error == pytest.approx(model.diagnostics_.gap)
    assert report.robustness == values[-5]
    with pytest.warns(UserWarning, match="not symmetric"):
        shifted = TwoLayerRegressor(4, refine=False).fit(X + 0.5, Y)
    assert "weights from moments alone are biased" in str(
        Report(shifted.network_, shifted.diagnostics_)
    )


# The page


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.images, self.links, self.text = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag == "img":
            self.images.append(attributes)
        self.links += [attributes[name] for name in ("href", "src") if name in attributes]

    def handle_data(self, data):
        self.text.append(data)


def checked(path, n_images=5):
    """Parse a page: pictures are whole, and nothing is loaded from elsewhere."""
    text = path.read_text()
    page = Page(text)
    prefix = "data:image/svg+xml;base64,"
    assert len(page.images) == n_images
    assert all(link.startswith(prefix) for link in page.links)
    for image in page.images:
        root = ElementTree.fromstring(base64.b64decode(image["src"].removeprefix(prefix)))
        assert root.tag.endswith("svg")
        for element in root.iter():
            for name, value in element.attrib.items():
                if name.endswith("href"):
                    assert value.startswith(("#", "data:")), value
                if "url(" in value:
                    assert "url(#" in value, value
    assert "@import" not in text
    assert "url(" not in text
    assert 'name=viewport content="width=device-width' in text
    return Shown(" ".join(page.text), [image["alt"] for image in page.images])


class Shown(str):
    """The text of a page, and what its pictures are called."""

    def __new__(cls, text, pictures):
        shown = super().__new__(cls, text)
        shown.pictures = pictures
        return shown

    def figure(self, name):
        """The number that follows a name in a table."""
        return float(self.split(name)[1].split()[0])


def test_page(fitted, tmp_path):
    X, Y, network, model = fitted
    events = []
    path = write_report(
        model.network_, from_arrays(X, Y), tmp_path / "r.html", truth=network,
        title="a <b> & c", callback=events.append,
    )  # fmt: skip
    text = checked(path)
    assert "a <b> & c" in text
    residual = Y - model.predict(X)
    assert text.figure("Mean squared norm of the residual") == pytest.approx(
        (residual**2).sum(axis=1).mean(), rel=1e-5
    )
    expected = r2_score(Y, model.predict(X), multioutput="variance_weighted")
    assert text.figure("R²") == pytest.approx(expected, rel=1e-5)
    assert "Weights against the true ones" in text.pictures
    assert "40,000" in text
    assert "Squared error of W, A" in text
    assert len({event.n_pass for event in events}) >= 3


def test_page_of_a_poor_model_says_so(fitted, tmp_path):
    X, Y, network, _ = fitted
    wrong = TwoLayerNetwork(network.hidden_weights + 0.1, network.output_weights)
    text = checked(write_report(wrong, from_arrays(X, Y), tmp_path / "r.html"))
    right = checked(write_report(network, from_arrays(X, Y), tmp_path / "s.html"))

    gained = [page.figure("A refinement from here lowers it by") for page in (text, right)]
    assert gained[0] > 0.01 > gained[1]
    assert "Weights against the refined ones" in text.pictures
    shifted = checked(write_report(network, from_arrays(X + 0.3, Y), tmp_path / "t.html"))
    assert "Of an estimate from moments alone: the inputs are not symmetric" in shifted
    X, Y, network = make_two_layer(20_000, 5, 4, 6, random_state=0)
    exact = checked(write_report(network, from_arrays(X, Y), tmp_path / "u.html"))
    assert "A refinement from here leaves nothing but rounding" in exact
    # Against the refined ones, which differ from a wrong model's.
    assert text != right


def test_page_with_intercepts_slope_and_one_unit(tmp_path):
    rng = np.random.default_rng(0)
    network = TwoLayerNetwork(
        [[1.0, 0.5, 0]], [[2.0]], hidden_intercept=[0.1], output_intercept=[0.3],
        negative_slope=0.2,
    )  # fmt: skip
    X = rng.standard_normal((20_000, 3))
    Y = network.predict(X) + 0.1 * rng.standard_normal((20_000, 1))
    text = checked(write_report(network, from_arrays(X, Y), tmp_path / "r.html"), 4)
    shown = text.figure("Mean squared norm of the residual")
    assert shown == pytest.approx(((Y - network.predict(X)) ** 2).mean(), rel=1e-5)


def test_page_of_a_network_that_moments_know_nothing_of(tmp_path):
    rng = np.random.default_rng(0)
    network = TwoLayerNetwork(
        rng.standard_normal((5, 3)), rng.standard_normal((1, 5)),
        hidden_intercept=rng.standard_normal(5), output_intercept=[0.3],
        linear_weights=rng.standard_normal((1, 3)), negative_slope=0.2,
    )  # fmt: skip
    X = rng.standard_normal((20_000, 3))
    Y = network.predict(X) + 0.1 * rng.standard_normal((20_000, 1))
    weights = rng.choice([0.5, 1.0, 2.0], 20_000)
    page = write_report(
        network, from_arrays(X, Y, sample_weight=weights), tmp_path / "r.html",
        truth=network.flipped([1, -1, 1, 1, -1]),
    )  # fmt: skip
    text = checked(page, 3)
    squares = ((Y - network.predict(X)) ** 2).sum(axis=1)
    shown = text.figure("Mean squared norm of the residual")
    assert shown == pytest.approx(np.average(squares, weights=weights), rel=1e-5)
    r2 = r2_score(Y, network.predict(X), sample_weight=weights)
    assert text.figure("R²") == pytest.approx(r2, rel=1e-5)
    assert "biases and a constant, a linear part" in text
    assert text.figure("Units of the opposite sign") == 2
    assert text.figure("Squared error of c + L x, relative") < 1e-20
    assert text.figure("A refinement from here lowers it by") < 0.01
    assert "at most as many hidden units as features and outputs" in text
    assert "Gap of the singular values" not in text


def test_page_of_a_line(tmp_path):
    rng = np.random.default_rng(0)
    line = TwoLayerNetwork(
        np.empty((0, 3)), np.empty((1, 0)), linear_weights=[[1.0, 0, 0]], output_intercept=[1.0]
    )
    X = rng.standard_normal((2000, 3))
    Y = line.predict(X) + 0.1 * rng.standard_normal((2000, 1))
    text = checked(write_report(line, from_arrays(X, Y), tmp_path / "r.html"), 3)
    assert text.figure("R²") == pytest.approx(r2_score(Y, line.predict(X)), rel=1e-5)


def test_page_draws_what_it_says(fitted, tmp_path, monkeypatch):
    """The model's own predictions, and the truth on the other axis."""
    X, Y, network, model = fitted
    seen = {}
    for name in ("outputs", "weights"):
        draw = getattr(plotting, name)

        def spy(*arguments, draw=draw, name=name, **how):
            seen[name] = arguments
            return draw(*arguments, **how)

        monkeypatch.setattr(plotting, name, spy)
    write_report(model.network_, from_arrays(X, Y), tmp_path / "r.html", truth=network)
    observed, predicted = seen["outputs"]
    assert not np.array_equal(observed, predicted)
    np.testing.assert_array_equal(predicted[:9], model.predict(X[:9]))
    assert seen["weights"] == (network, model.network_)


def test_long_tables_are_cut_where_it_matters_and_say_so(tmp_path):
    X, Y, network = make_two_layer(3000, 60, 8, 70, noise=0.1, random_state=0)
    text = checked(write_report(network, from_arrays(X, Y), tmp_path / "r.html"))
    assert "and 20 more" in text.replace("and  20", "and 20")
    assert "numbers 1 to 24 of 60" in text  # correlations, with number 8 among them
    assert "numbers 13 to 36 of 36" in text  # singular values, with the gap after number 28


def test_page_refuses_other_samples(fitted, tmp_path):
    X, Y, network, _ = fitted
    with pytest.raises(ValueError, match="the samples have 4 features and 6 outputs"):
        write_report(network, from_arrays(X[:, :4], Y), tmp_path / "r.html")
    other = TwoLayerNetwork(network.hidden_weights[:2], network.output_weights[:, :2])
    events = []
    with pytest.raises(ValueError, match="must have the same"):
        write_report(
            network, from_arrays(X, Y), tmp_path / "r.html", truth=other, callback=events.append
        )
    assert not events  # before any pass
    assert not (tmp_path / "r.html").exists()


def test_command_line(fitted, tmp_path, run):
    X, Y, network, model = fitted
    np.save(tmp_path / "X.npy", X)
    np.save(tmp_path / "Y.npy", Y)
    model.network_.save(tmp_path / "model.npz")
    network.save(tmp_path / "truth.npz")
    names = [tmp_path / name for name in ("model.npz", "X.npy", "Y.npy")]
    out = tmp_path / "report.html"
    code, shown, _ = run("report", *names, "--out", out, "--truth", tmp_path / "truth.npz")
    assert code == 0
    assert str(out) in shown
    assert "model.npz: 40,000 samples" in checked(out)
    for name, message in (("model.npz", "would replace"), ("X.npy", "would replace"),
                          (".", "is a folder")):  # fmt: skip
        code, _, err = run("report", *names, "--out", tmp_path / name)
        assert code == 2
        assert message in err


def test_symmetry_scores_are_drawn(fitted):
    from fastsym import accumulate

    X, Y = fitted[:2]
    test = symmetry_test(accumulate(from_arrays(X, Y), 4).moments())
    lines = plotting.symmetry(test).get_lines()
    np.testing.assert_array_equal(lines[1].get_ydata(), test.mean_scores)
    np.testing.assert_array_equal(lines[2].get_ydata(), test.third_scores)
