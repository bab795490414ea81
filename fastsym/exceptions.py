"""Warnings and errors of the package. Each message carries the figure that caused it."""

import sys
import warnings

# What stands between a user's line and this package: itself, and what calls it for the user.
_NOT_THE_USERS = {"fastsym", "sklearn", "joblib", "contextlib", "threadpoolctl"}


class RankError(ValueError):
    """The cross-covariance of x and y has fewer directions than n_hidden."""


class RankDeficientWarning(UserWarning):
    """The second moments of the inputs are singular; a pseudo-inverse is used."""


class AsymmetricInputWarning(UserWarning):
    """The inputs are not symmetric, which the method assumes."""


class ConvergenceWarning(UserWarning):
    """The least-squares optimum was not reached, nothing certifies it, or a stream changes."""


class IdentifiabilityWarning(UserWarning):
    """The weights, or their number, are one choice of many: units alike or unused, few samples."""


class LackOfFitWarning(UserWarning):
    """The residual depends on the inputs: the model does not describe the samples."""


class SpectralGapWarning(UserWarning):
    """No gap separates the pure neurons from the rest, so the weights are not determined."""


def warn(message: str, category: type[Warning]) -> None:
    """Warn, naming the line of the user's code that led here.

    Parameters
    ----------
    message : str
    category : type of Warning

    Warns
    -----
    category
        With the place of the first frame outside of this package, of scikit-learn's wrappers and
        pipelines, and of decorators.
    """
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None:
        if frame.f_globals.get("__name__", "").partition(".")[0] not in _NOT_THE_USERS:
            break
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)
