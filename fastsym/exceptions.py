"""Warnings of the package. Each message carries the figure that caused it."""


class RankDeficientWarning(UserWarning):
    """The second moments of the inputs are singular; a pseudo-inverse is used."""


class AsymmetricInputWarning(UserWarning):
    """The inputs are not symmetric, which the method assumes."""


class SpectralGapWarning(UserWarning):
    """No gap separates the pure neurons from the rest, so the weights are not determined."""
