"""The demonstration on the command line."""

import json

import numpy as np

from fastsym import TwoLayerNetwork


def test_demo(tmp_path, run):
    code, out, _ = run("demo", "--samples", 20_000, "--out", tmp_path / "demo", "--json")
    assert code == 0
    results = json.loads(out)
    assert results["n_hidden"] == 10
    assert results["test_accuracy"] > 0.85
    assert results["hidden_error"] < 0.02
    assert results["output_weight_error"] < 0.02
    assert results["output_error"] < 1e-3
    assert results["same_class"] > 0.98
    assert TwoLayerNetwork.load(results["model"]).n_features == 20
    assert np.load(tmp_path / "demo" / "X.npy", mmap_mode="r").shape == (20_000, 20)
    code, out, _ = run("demo", "--samples", 5000, "--out", tmp_path / "demo")
    for part in ("Trained a 20-10-10", "Queried it with 5,000", "samples/s", "same class on"):
        assert part in out
