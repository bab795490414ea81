"""Biases of any size where the spectral method has its start, k <= min(d, m): prints a table.

python -m benchmarks.tables.biases [--problems N] [--seed S] [--noise SHARE] [--rows N]

Eight features, hidden units and outputs; the columns are those of `any_network`.
"""

import argparse

from benchmarks.tables.any_network import Cell, table
from benchmarks.tables.fits import load, one_thread

BIASES = (0.1, 0.5, 1.0, 2.0)  # standard deviations of the inputs


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--problems", type=int, default=48, help="of each size of the biases")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--noise", type=float, default=0.1)
    parser.add_argument("--rows", type=int, default=4000)
    arguments = parser.parse_args(argv)
    with one_thread():
        load()
        cells = [Cell(8, 8, 8, bias, arguments.noise) for bias in BIASES]
        table(cells, arguments.problems, arguments.seed, arguments.rows)


if __name__ == "__main__":
    main()
