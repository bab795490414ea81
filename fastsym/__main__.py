"""``python -m fastsym``."""

from fastsym.cli import main

main()
