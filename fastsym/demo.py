"""The demonstration: recover a digit classifier from queries alone."""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from fastsym import spectral
from fastsym._files import write_npy
from fastsym.datasets import sample_blocks
from fastsym.engine import accumulate
from fastsym.metrics import output_error, parameter_error
from fastsym.moments import load_kernels
from fastsym.network import TwoLayerNetwork
from fastsym.progress import progress_bar
from fastsym.refine import refine
from fastsym.sources import open_source

N_FEATURES, N_HIDDEN, N_OUTPUTS = 20, 10, 10
_TRAINING_ITERATIONS = 60


def whitened_digits(
    random_state: int = 0,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[Any], NDArray[Any]]:
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


def train_classifier(
    X: NDArray[np.float64], labels: NDArray[Any], random_state: int = 0
) -> TwoLayerNetwork:
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

    def loss(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
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

    folder.mkdir(parents=True, exist_ok=True)
    x_path, y_path, model_path = (folder / name for name in ("X.npy", "Y.npy", "model.npz"))
    for path, part, columns in ((x_path, 0, N_FEATURES), (y_path, 1, N_OUTPUTS)):
        blocks = sample_blocks(trained, n_samples, random_state=0)
        write_npy(path, (n_samples, columns), "float64", (block[part] for block in blocks))
    say(f"Queried it with {n_samples:,} symmetric (Gaussian) inputs: {x_path}, {y_path}")

    before = time.perf_counter()
    load_kernels()
    compile_seconds = time.perf_counter() - before
    say(f"Compiled or loaded the kernels in {compile_seconds:.1f} s")

    before = time.perf_counter()
    source = open_source(x_path, y_path)
    with progress_bar() as callback:
        accumulated = accumulate(source, callback=callback)
    stream_seconds = time.perf_counter() - before
    before = time.perf_counter()
    solution = spectral.solve(accumulated.moments())
    solve_seconds = time.perf_counter() - before
    before = time.perf_counter()
    refinement = refine(source, solution.network, trusted=solution.diagnostics.clear)
    refine_seconds = time.perf_counter() - before
    recovered = refinement.network
    recovered.save(model_path)

    answers, copies = trained.predict(X_test), recovered.predict(X_test)
    results: dict[str, Any] = {
        "n_samples": n_samples,
        "n_hidden": recovered.n_hidden,
        "test_accuracy": accuracy,
        "output_error": output_error(answers, copies),
        "same_class": float((answers.argmax(axis=1) == copies.argmax(axis=1)).mean()),
        "samples_per_second": n_samples / stream_seconds,
        "stream_seconds": stream_seconds,
        "solve_seconds": solve_seconds,
        "refine_seconds": refine_seconds,
        "certificate": refinement.certificate,
        "compile_seconds": compile_seconds,
        "total_seconds": time.perf_counter() - start,
        "model": str(model_path),
    }
    if recovered.n_hidden == trained.n_hidden:
        spectral_error = parameter_error(trained, solution.network)
        error = parameter_error(trained, recovered)
        results |= {"hidden_error": error.hidden_error, "output_weight_error": error.output_error}
    if as_json:
        print(json.dumps(results))
        return results
    say(
        f"Streamed the files in {stream_seconds:.2f} s ({results['samples_per_second']:,.0f} "
        f"samples/s), solved in {solve_seconds:.2f} s: found {recovered.n_hidden} hidden units"
    )
    if "hidden_error" in results:
        say(
            f"Weight errors from the moments (summed squared distances of the {N_HIDDEN} neurons): "
            f"W {spectral_error.hidden_error:.2g}, A {spectral_error.output_error:.2g}"
        )
        say(
            f"Refined in {refine_seconds:.2f} s, first call compiled: W "
            f"{results['hidden_error']:.2g}, A {results['output_weight_error']:.2g}"
        )
    say(
        f"On {len(X_test)} held-out digits: relative output error {results['output_error']:.2g}, "
        f"same class on {results['same_class']:.1%}"
    )
    say(f"Model: {model_path}   (total {results['total_seconds']:.1f} s)")
    return results
