"""The demonstration: recover a digit classifier from queries alone."""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from fastsym import spectral
from fastsym.algebra import Matrix
from fastsym.archive import write_npy
from fastsym.datasets import sample_blocks
from fastsym.engine import accumulate
from fastsym.engine.progress import progress_bar
from fastsym.metrics import ParameterError, output_error, parameter_error
from fastsym.network import TwoLayerNetwork
from fastsym.refine import Refinement, refine
from fastsym.refine.starts import spectral_start
from fastsym.sources import open_source
from fastsym.sums.moments import load_kernels

N_FEATURES, N_HIDDEN, N_OUTPUTS = 20, 10, 10
_TRAINING_ITERATIONS = 60


def whitened_digits(
    random_state: int = 0,
) -> tuple[Matrix, Matrix, NDArray[Any], NDArray[Any]]:
    """Return scikit-learn's handwritten digits, whitened PCA to 20 features.

    Parameters
    ----------
    random_state : int, default=0
        Of the split into training and test digits.

    Returns
    -------
    X_train, X_test : ndarray of shape (n, 20)
    labels_train, labels_test : ndarray of shape (n,), int
    """
    from sklearn.datasets import load_digits
    from sklearn.decomposition import PCA
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    train, test, labels_train, labels_test = train_test_split(
        images, labels, test_size=0.25, random_state=random_state, stratify=labels
    )
    pca = PCA(N_FEATURES, whiten=True, svd_solver="full").fit(train)
    return pca.transform(train), pca.transform(test), labels_train, labels_test


def train_classifier(X: Matrix, labels: NDArray[Any], random_state: int = 0) -> TwoLayerNetwork:
    """Train a bias-free 20-10-10 ReLU network with cross-entropy and SciPy's L-BFGS.

    Parameters
    ----------
    X : ndarray of shape (n, 20)
    labels : ndarray of shape (n,)
        Classes 0 to 9.
    random_state : int, default=0

    Returns
    -------
    network : TwoLayerNetwork
    """
    rng = np.random.default_rng(random_state)
    n, split = len(X), N_HIDDEN * N_FEATURES
    targets = np.eye(N_OUTPUTS)[labels]

    def loss(weights: Matrix) -> tuple[float, Matrix]:
        W = weights[:split].reshape(N_HIDDEN, N_FEATURES)
        A = weights[split:].reshape(N_OUTPUTS, N_HIDDEN)
        hidden = np.maximum(X @ W.T, 0)
        scores = hidden @ A.T
        scores -= scores.max(axis=1, keepdims=True)
        log_norm = np.log(np.exp(scores).sum(axis=1, keepdims=True))
        error = (np.exp(scores - log_norm) - targets) / n
        value = -(targets * (scores - log_norm)).sum() / n
        grad_A = error.T @ hidden
        grad_W = ((error @ A) * (hidden > 0)).T @ X
        return value, np.concatenate([grad_W.ravel(), grad_A.ravel()])

    start = rng.standard_normal(split + N_OUTPUTS * N_HIDDEN) / np.sqrt(N_FEATURES)
    result = minimize(
        loss, start, jac=True, method="L-BFGS-B", options={"maxiter": _TRAINING_ITERATIONS}
    )
    return TwoLayerNetwork(
        result.x[:split].reshape(N_HIDDEN, N_FEATURES),
        result.x[split:].reshape(N_OUTPUTS, N_HIDDEN),
    )


def run(
    folder: Path,
    n_samples: int,
    *,
    as_json: bool = False,
) -> dict[str, Any]:
    """Run the demonstration and print what it found.

    Parameters
    ----------
    folder : path
        Created if it is missing; receives X.npy, Y.npy and model.npz.
    n_samples : int
        Queries to the trained network.
    as_json : bool, default=False
        Print one JSON object in place of the lines.

    Returns
    -------
    results : dict
        The figures printed.
    """

    def say(text: str) -> None:
        if not as_json:
            print(text, flush=True)

    start = time.perf_counter()
    X_train, X_test, labels_train, labels_test = whitened_digits()
    trained = train_classifier(X_train, labels_train)
    accuracy = float((trained.predict(X_test).argmax(axis=1) == labels_test).mean())
    say(
        f"Trained a {N_FEATURES}-{N_HIDDEN}-{N_OUTPUTS} ReLU network on handwritten digits: "
        f"test accuracy {accuracy:.3f}"
    )

    paths = _query(trained, folder, n_samples)
    say(f"Queried it with {n_samples:,} symmetric (Gaussian) inputs: {paths[0]}, {paths[1]}")

    before = time.perf_counter()
    load_kernels()
    compile_seconds = time.perf_counter() - before
    say(f"Compiled or loaded the kernels in {compile_seconds:.1f} s")

    spectral_only, refinement, seconds = _recover(*paths)
    recovered, model_path = refinement.network, folder / "model.npz"
    recovered.save(model_path)

    answers, copies = trained.predict(X_test), recovered.predict(X_test)
    results: dict[str, Any] = {
        "n_samples": n_samples,
        "n_hidden": recovered.n_hidden,
        "test_accuracy": accuracy,
        "output_error": output_error(answers, copies),
        "same_class": float((answers.argmax(axis=1) == copies.argmax(axis=1)).mean()),
        "samples_per_second": n_samples / seconds["stream_seconds"],
        **seconds,
        "certificate": refinement.certificate,
        "compile_seconds": compile_seconds,
        "total_seconds": time.perf_counter() - start,
        "model": str(model_path),
    }
    errors = None
    if recovered.n_hidden == trained.n_hidden:
        errors, error = (
            parameter_error(trained, one, up_to_sign=False) for one in (spectral_only, recovered)
        )
        results |= {"hidden_error": error.hidden_error, "output_weight_error": error.output_error}
    if as_json:
        print(json.dumps(results))
    else:
        _tell(results, errors, len(X_test))
    return results


def _query(trained: TwoLayerNetwork, folder: Path, n_samples: int) -> tuple[Path, Path]:
    """Ask the network for its outputs at Gaussian inputs, and write both."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = folder / "X.npy", folder / "Y.npy"
    for part, columns in enumerate((N_FEATURES, N_OUTPUTS)):
        blocks = sample_blocks(trained, n_samples, random_state=0)
        write_npy(paths[part], (n_samples, columns), "float64", (block[part] for block in blocks))
    return paths


def _recover(x: Path, y: Path) -> tuple[TwoLayerNetwork, Refinement, dict[str, float]]:
    """Fit to the files step by step: network of the moments, its refinement, seconds of each."""
    times = [time.perf_counter()]
    source = open_source(x, y)
    with progress_bar() as callback:
        accumulated = accumulate(source, callback=callback)
    times.append(time.perf_counter())
    solution = spectral.solve(accumulated.moments())
    times.append(time.perf_counter())
    refinement = refine(source, spectral_start(solution))
    times.append(time.perf_counter())
    names = ("stream_seconds", "solve_seconds", "refine_seconds")
    return solution.network, refinement, dict(zip(names, np.diff(times).tolist(), strict=True))


def _tell(results: dict[str, Any], moments: ParameterError | None, n_test: int) -> None:
    """Print the results; `moments` are the errors of the network from the moments."""
    print(
        f"Streamed the files in {results['stream_seconds']:.2f} s "
        f"({results['samples_per_second']:,.0f} samples/s), solved in "
        f"{results['solve_seconds']:.2f} s: found {results['n_hidden']} hidden units"
    )
    if moments is not None:
        print(
            f"Weight errors from the moments (summed squared distances of the {N_HIDDEN} neurons): "
            f"W {moments.hidden_error:.2g}, A {moments.output_error:.2g}"
        )
        print(
            f"Refined in {results['refine_seconds']:.2f} s, first call compiled: W "
            f"{results['hidden_error']:.2g}, A {results['output_weight_error']:.2g}"
        )
    print(
        f"On {n_test} held-out digits: relative output error {results['output_error']:.2g}, "
        f"same class on {results['same_class']:.1%}"
    )
    print(f"Model: {results['model']}   (total {results['total_seconds']:.1f} s)")
