"""Fits of data in other units, and held-out digits: prints tables.

python -m benchmarks.tables.scales [DIGITS_SEEDS ...]

The first compares fits of X and Y times factors with the fit of the data as they are: the largest
difference of predictions, relative to the largest prediction, and of weights, relative to the
largest of their feature or output. The second splits the digits of scikit-learn into training and
test rows; some pixels are zero in nearly all rows.
"""

import itertools
import sys
import warnings

import numpy as np

from benchmarks.tables.fits import PAPER
from fastsym import TwoLayerRegressor, make_two_layer
from fastsym.metrics import match_neurons
from fastsym.network import TwoLayerNetwork

N, D, M, K = 400, 4, 3, 2
EXPONENTS = (-150, -120, -60, 0, 60, 120, 150)
SEED = 1207
DIGITS_SEEDS = (101, 102, 103)


def caught(fit):
    """What a function returns, and the kinds of warnings it gave."""
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        result = fit()
    return result, sorted({one.category.__name__ for one in given})


def largest_differences(plain, scaled, X, of_x, of_y):
    """Largest relative differences of predictions and weights from a fit of plain data.

    of_x and of_y are factors of the columns.
    """
    expected, found = plain.predict(X), scaled.predict(X * of_x) / of_y
    of_predictions = (np.abs(found - expected) / np.abs(expected).max(axis=0)).max()
    # The network in the units of the plain data, with rows of any length: one factor a row, so that
    # nothing overflows.
    W, A = scaled.hidden_weights_, scaled.output_weights_ / of_y[:, None]
    logs = np.log10(np.maximum(np.abs(W), 1e-320)) + np.log10(of_x)
    top = logs.max(axis=1, keepdims=True)
    hidden = np.sign(W) * 10.0 ** (logs - top)
    lengths = np.linalg.norm(hidden, axis=1)
    outputs = np.sign(A) * 10.0 ** (
        np.log10(np.maximum(np.abs(A), 1e-320)) + (top[:, 0] + np.log10(lengths))
    )
    network = TwoLayerNetwork(hidden / lengths[:, None], outputs)
    order = match_neurons(plain.network_, network).order
    hidden, outputs = network.hidden_weights[order], network.output_weights[:, order]
    W, A = plain.hidden_weights_, plain.output_weights_
    of_weights = max(
        (np.abs(hidden - W) / np.abs(W).max(axis=0)).max(),
        (np.abs(outputs - A) / np.abs(A).max(axis=1, keepdims=True)).max(),
    )
    return of_predictions, of_weights


def scales():
    """Print differences of fits of scaled data."""
    X, Y, _ = make_two_layer(N, D, K, M, noise=0.1, random_state=SEED)
    plain, _ = caught(lambda: TwoLayerRegressor(K, **PAPER).fit(X, Y))
    print("X times   Y times    predictions   weights   converged_   warnings")
    cases = [
        (f"1e{x}", f"1e{y}", np.full(D, 10.0**x), 10.0**y)
        for x, y in itertools.product(EXPONENTS, EXPONENTS)
    ]
    generator = np.random.default_rng(SEED)
    for width in (6, 20, 60, 120, 150):
        exponents = generator.permutation(np.linspace(-width, width, D).round()).astype(int)
        cases.append((f"columns 1e{exponents.tolist()}", "1", 10.0**exponents, 1.0))
    for of_x, of_y, x_factors, y_factor in cases:
        y_factors = np.full(M, y_factor)
        scaled = X * x_factors, Y * y_factors
        model, given = caught(lambda: TwoLayerRegressor(K, **PAPER).fit(*scaled))  # noqa: B023
        differences = largest_differences(plain, model, X, x_factors, y_factors)
        print(
            f"{of_x:>7}   {of_y:>7}    {differences[0]:11.1e}   {differences[1]:7.1e}   "
            f"{model.converged_!s:>10}   {', '.join(given)}"
        )


def digits(seeds):
    """Print the held-out R2 of fits of digits beside that of linear regression."""
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LinearRegression, RidgeCV
    from sklearn.metrics import r2_score
    from sklearn.model_selection import train_test_split

    data = load_digits()
    Y = np.eye(10)[data.target]

    def held_out(model, X, Y):
        return r2_score(Y, model.predict(X), multioutput="variance_weighted")

    print("seed   n_hidden   train   test   linear   ridge   rank warnings")
    for seed, k in itertools.product(seeds, (5, 7, 10)):
        X, X_test, Y_fit, Y_test = train_test_split(data.data, Y, random_state=seed)
        with warnings.catch_warnings(record=True) as given:
            warnings.simplefilter("always")
            model = TwoLayerRegressor(k, **PAPER).fit(X, Y_fit)
        n_rank = sum(one.category.__name__ == "RankDeficientWarning" for one in given)
        linear = held_out(LinearRegression().fit(X, Y_fit), X_test, Y_test)
        ridge = held_out(RidgeCV(np.logspace(-3, 4, 15)).fit(X, Y_fit), X_test, Y_test)
        print(
            f"{seed:>4}   {k:>8}   {held_out(model, X, Y_fit):5.3f}   "
            f"{held_out(model, X_test, Y_test):5.3f}   {linear:6.3f}   {ridge:5.3f}   {n_rank}"
        )


if __name__ == "__main__":
    scales()
    print()
    digits([int(seed) for seed in sys.argv[1:]] or DIGITS_SEEDS)
