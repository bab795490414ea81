"""From moments to a network: plain linear algebra on small matrices, no data.

`solve` is the method: linear part, distinguishing matrix, null space, joint diagonalization,
read-out. The references are to Ge, Kuditipudi, Li, Wang, "Learning Two-layer Neural Networks with
Symmetric Inputs", ICLR 2019, arXiv:1810.06793; docs/method.md has the mathematics in this package's
notation.
"""

from fastsym.spectral.diagnostics import (
    ASYMMETRY_WARNING,
    GAP_WARNING,
    RESIDUAL_WARNING,
    Diagnostics,
    SymmetryTest,
    symmetry_test,
)
from fastsym.spectral.diagonalization import (
    METHODS,
    Diagonalizer,
    JointDiagonalization,
    cp_als,
    random_pair,
    uwedge,
)
from fastsym.spectral.equations import (
    Whitening,
    distinguishing_matrix,
    linear_part,
    null_space,
    read_out,
    whiten,
)
from fastsym.spectral.solution import SpectralSolution, solve, warn_of_asymmetry

__all__ = [
    "ASYMMETRY_WARNING",
    "GAP_WARNING",
    "METHODS",
    "RESIDUAL_WARNING",
    "Diagnostics",
    "Diagonalizer",
    "JointDiagonalization",
    "SpectralSolution",
    "SymmetryTest",
    "Whitening",
    "cp_als",
    "distinguishing_matrix",
    "linear_part",
    "null_space",
    "random_pair",
    "read_out",
    "solve",
    "symmetry_test",
    "uwedge",
    "warn_of_asymmetry",
    "whiten",
]
