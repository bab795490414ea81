"""Studies made with the package: the paper's experiments and their figures, and the demo."""
