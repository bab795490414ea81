"""Equality to the last bit."""

import numpy as np

FIELDS = ("second", "pair_cross", "third", "yyxx", "yxxx")


def assert_same_bits(a, b):
    a, b = a.moments(), b.moments()
    assert a.n_samples == b.n_samples
    assert a.frame == b.frame
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
