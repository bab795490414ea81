"""Warnings and errors of the package. Each message carries the figure that caused it."""


class RankError(ValueError):
    """The cross-covariance of x and y has fewer directions than n_hidden."""


class RankDeficientWarning(UserWarning):
    """The second moments of the inputs are singular; a pseudo-inverse is used."""


class AsymmetricInputWarning(UserWarning):
    """The inputs are not symmetric, which the method assumes."""


class ConvergenceWarning(UserWarning):
    """The refinement did not reach the least-squares optimum, or nothing certifies it."""


class IdentifiabilityWarning(UserWarning):
    """Hidden units are parallel or unused, so that their weights are one choice of many."""


class SpectralGapWarning(UserWarning):
    """No gap separates the pure neurons from the rest, so the weights are not determined."""
