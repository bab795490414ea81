"""Door to `fastsym.sums.moments`: to import one is to import the other."""

import sys

from fastsym.sums import moments
from fastsym.sums.moments import *  # noqa: F403 - what type checkers see

sys.modules[__name__] = moments
