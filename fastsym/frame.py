"""Door to `fastsym.sums.frame`: to import one is to import the other."""

import sys

from fastsym.sums import frame
from fastsym.sums.frame import *  # noqa: F403 - what type checkers see

sys.modules[__name__] = frame
