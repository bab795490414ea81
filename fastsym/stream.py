"""Door to `fastsym.refine.stream`: to import one is to import the other."""

import sys

from fastsym.refine import stream
from fastsym.refine.stream import *  # noqa: F403 - what type checkers see

sys.modules[__name__] = stream
