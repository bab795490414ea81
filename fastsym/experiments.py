"""Door to `fastsym.studies.experiments`: to import one is to import the other."""

import sys

from fastsym.studies import experiments
from fastsym.studies.experiments import *  # noqa: F403 - what type checkers see

sys.modules[__name__] = experiments
