"""How far the kernels are from full tensors; a program, to be run as if on other processors."""

import json

import numpy as np

from fastsym import MomentAccumulator, make_two_layer
from fastsym.refine.sample import Sample
from fastsym.sums.kernels import MACHINE

from .. import naive

SHAPES = [(1, 1, 1), (3, 2, 2), (4, 3, 9), (7, 5, 5), (9, 8, 8), (17, 10, 12)]
"""Every remainder of rows and columns."""


def relative_error(got, value):
    """Largest difference over the largest element."""
    return float(np.abs(got - value).max() / np.abs(value).max())


def moment_errors(dtype):
    how = {"compute_dtype": dtype, "negative_slope": 0.25}
    for d, k, m in SHAPES:
        X, Y, _ = make_two_layer(333, d, k, m, noise=0.1, random_state=0)
        moments = MomentAccumulator(k, **how).update(X, Y).moments()
        for name, value in naive.moments(X, Y, moments.frame).items():
            yield relative_error(getattr(moments, name), value)


def residual_errors():
    for n, d, k, m in [(333, 1, 1, 1), (200, 7, 5, 5), (129, 17, 10, 12)]:
        rng = np.random.default_rng(0)
        X, Y = rng.standard_normal((n, d)), rng.standard_normal((n, m))
        hidden, outputs = rng.standard_normal((k, 1 + d)), rng.standard_normal((m, k))
        sample = Sample(X, Y)
        sums = sample.residuals(hidden, outputs, 0.1)
        masks = naive.mask_moments(X, hidden, 0.1)
        yield relative_error(sample.mask_moments(hidden, 0.1), masks)
        for name, value in naive.residuals(X, Y, hidden, outputs, 0.1).items():
            yield relative_error(getattr(sums, name), value)


def largest_errors():
    """The largest relative error of any sum, for each dtype."""
    return {
        "float64": max([*moment_errors("float64"), *residual_errors()]),
        "float32": max(moment_errors("float32")),
    }


if __name__ == "__main__":
    print(json.dumps({"name": MACHINE.name, **largest_errors()}))
