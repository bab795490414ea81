"""Door to `fastsym.spectral.diagnostics`: to import one is to import the other."""

import sys

from fastsym.spectral import diagnostics
from fastsym.spectral.diagnostics import *  # noqa: F403 - what type checkers see

sys.modules[__name__] = diagnostics
