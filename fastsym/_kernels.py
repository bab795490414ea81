"""Numba kernels: the only compiled code of the package.

All kernels are in this one file because ``cache=True`` does not notice an edit of a helper in
another file. Arrays come in one layout only (C order, staged by ``moments``), so each kernel has
two specialisations, float64 and float32.

Symbols: ``S`` rows of a staged superblock, ``k`` hidden units (n_hidden), ``d`` features,
``m`` outputs, ``P = k (k + 1) / 2`` pairs, ``Q = k (k + 1) (k + 2) / 6`` triples. Pairs (a, b) with
a <= b and triples (a, b, c) with a <= b <= c are in lexicographic order, so the pairs (b, c) with
b >= a are the suffix of the pairs that starts at ``pair_offset(a, k)``, and the triples that start
with a are x_a times that suffix.
"""

from typing import Any

import numpy as np
from numba import njit, prange

BLOCK_ROWS = 128
"""Rows whose packed features are in cache together; sums are first taken over one such block."""

_COLUMNS = 64  # columns of a product that are summed together

# 'contract' lets a multiply and an add fuse; no flag that assumes NaN or infinity away, and none
# that reorders sums.
_OPTIONS: Any = {"nogil": True, "cache": True, "fastmath": {"contract"}}


@njit(**_OPTIONS)
def pair_offset(a, k):
    """Position of the pair (a, a) among the k (k + 1) / 2 pairs in lexicographic order."""
    return a * k - a * (a - 1) // 2


@njit(**_OPTIONS)
def _pack_pairs(x, first, n_rows, pairs):
    """pairs[n, (a, b)] = x[first + n, a] x[first + n, b].

    x is (S, k); pairs is (BLOCK_ROWS, P), owned by the caller, its first n_rows rows written.
    """
    k = x.shape[1]
    for n in range(n_rows):
        p = 0
        for a in range(k):
            x_a = x[first + n, a]
            for b in range(a, k):
                pairs[n, p] = x_a * x[first + n, b]
                p += 1


@njit(**_OPTIONS)
def _add_product(left, n_left, right, first_column, n_rows, out, out_row, out_column, n_columns):
    """out[out_row + i, out_column + j] += sum_n left[i, n] right[n, first_column + j].

    left is (>= n_left, >= n_rows) with samples last, right is (>= n_rows, .) with samples first,
    out is float64 and owned by the caller. The sum over n is taken in the dtype of left and right
    and added to out once.
    """
    total = np.empty(_COLUMNS, left.dtype)
    for j0 in range(0, n_columns, _COLUMNS):
        width = min(_COLUMNS, n_columns - j0)
        column = first_column + j0
        for i in range(n_left):
            total[:width] = 0
            n = 0
            while n + 4 <= n_rows:
                l0, l1, l2, l3 = left[i, n], left[i, n + 1], left[i, n + 2], left[i, n + 3]
                r0 = right[n, column : column + width]
                r1 = right[n + 1, column : column + width]
                r2 = right[n + 2, column : column + width]
                r3 = right[n + 3, column : column + width]
                for j in range(width):
                    total[j] += l0 * r0[j] + l1 * r1[j] + l2 * r2[j] + l3 * r3[j]
                n += 4
            while n < n_rows:
                l0 = left[i, n]
                r0 = right[n, column : column + width]
                for j in range(width):
                    total[j] += l0 * r0[j]
                n += 1
            for j in range(width):
                out[out_row + i, out_column + j0 + j] += total[j]


@njit(**_OPTIONS)
def _project(rows, first, n_rows, d, input_map, output_map, even_map, x, y, even):
    """Fill one block of the projected samples.

    x[n] = X[n] input_map, y[n] = Y[n] output_map, even[n] = (1, pairs of x[n]) even_map.
    rows is (S, 1 + d + m) holding (1, X, Y); the maps are (d, k), (m, k) and (1 + P, m);
    x (S, k), y (S, k) and even (S, m) belong to the caller, rows first .. first + n_rows written.
    """
    m, k = output_map.shape
    for n in range(first, first + n_rows):
        for a in range(k):
            x[n, a] = 0
            y[n, a] = 0
        for i in range(d):
            value = rows[n, 1 + i]
            for a in range(k):
                x[n, a] += value * input_map[i, a]
        for i in range(m):
            value = rows[n, 1 + d + i]
            for a in range(k):
                y[n, a] += value * output_map[i, a]
        for j in range(m):
            even[n, j] = even_map[0, j]
        p = 1
        for a in range(k):
            for b in range(a, k):
                value = x[n, a] * x[n, b]
                for j in range(m):
                    even[n, j] += value * even_map[p, j]
                p += 1


@njit(**_OPTIONS)
def _accumulate_task(
    rows, n_rows, inverse_scale, x, y, even, lane, n_lanes, part, n_parts,
    second, even_cross, third, yyxx, yxxx,
):  # fmt: skip
    """Add the blocks of one lane to one part of that lane's sums.

    Arrays as in ``accumulate``; the sums here are those of one lane. Part ``part`` of ``n_parts``
    owns a range of the rows of each sum, so two tasks never write the same element.
    """
    k = x.shape[1]
    d, m = third.shape[1], even.shape[1]
    n_pairs = k * (k + 1) // 2
    width = 1 + d + m
    left = np.empty((max(n_pairs // n_parts + 1, width // n_parts + 1, k), BLOCK_ROWS), x.dtype)
    pairs = np.empty((BLOCK_ROWS, n_pairs), x.dtype)
    n_blocks = (n_rows + BLOCK_ROWS - 1) // BLOCK_ROWS

    for block in range(lane, n_blocks, n_lanes):
        first = block * BLOCK_ROWS
        count = min(BLOCK_ROWS, n_rows - first)
        _pack_pairs(x, first, count, pairs)

        # E[y y x x]: left features are the pairs of y.
        begin, end = n_pairs * part // n_parts, n_pairs * (part + 1) // n_parts
        p = 0
        for a in range(k):
            for b in range(a, k):
                if begin <= p < end:
                    for n in range(count):
                        left[p - begin, n] = y[first + n, a] * y[first + n, b]
                p += 1
        _add_product(left, end - begin, pairs, 0, count, yyxx, begin, 0, n_pairs)

        # E[y x x x]: left features are y_i x_a, right ones the pairs that continue a triple from a.
        triple = 0
        for a in range(k):
            offset = pair_offset(a, k)
            if a % n_parts == part:
                for i in range(k):
                    for n in range(count):
                        left[i, n] = y[first + n, i] * x[first + n, a]
                _add_product(left, k, pairs, offset, count, yxxx, 0, triple, n_pairs - offset)
            triple += n_pairs - offset

        # Second moments of (1, X, Y), upper triangle, and E[(1, X) even].
        begin, end = width * part // n_parts, width * (part + 1) // n_parts
        for i in range(begin, end):
            for n in range(count):
                left[i - begin, n] = rows[first + n, i]
        block_rows = rows[first : first + count]
        _add_product(
            left, end - begin, block_rows, begin, count, second, begin, begin, width - begin
        )
        n_left = min(end, 1 + d) - begin
        if n_left > 0:
            _add_product(
                left, n_left, even[first : first + count], 0, count, even_cross, begin, 0, m
            )

        for i in range(max(begin, 1), min(end, 1 + d)):
            cube_sum = 0.0
            square_sum = 0.0
            for n in range(count):
                t = rows[first + n, i] * inverse_scale[i - 1]
                cube = t * t * t
                cube_sum += cube
                square_sum += cube * cube
            third[0, i - 1] += cube_sum
            third[1, i - 1] += square_sum


@njit(parallel=True, **_OPTIONS)
def accumulate(
    rows, n_rows, input_map, output_map, even_map, inverse_scale, n_lanes, n_parts,
    second, even_cross, third, yyxx, yxxx,
):  # fmt: skip
    """Add n_rows staged samples to the moment sums.

    With x = X input_map, y = Y output_map and even = (1, pairs of x) even_map::

        second      (L, 1 + d + m, 1 + d + m)  += v v^T, v = (1, X, Y); upper triangle only
        even_cross  (L, 1 + d, m)              += (1, X) even^T
        third       (L, 2, d)                  += ((X_i / scale_i)^3, (X_i / scale_i)^6)
        yyxx        (L, P, P)                  += (pairs of y) (pairs of x)^T
        yxxx        (L, k, Q)                  += y (triples of x)^T

    rows is (S, 1 + d + m), C order, holding (1, X, Y); the maps are (d, k), (m, k), (1 + P, m) in
    the dtype of rows, inverse_scale (d,) and the sums float64. The caller owns all of them.
    Block i of BLOCK_ROWS samples always goes to lane i mod n_lanes, and n_parts tasks share the
    rows of a lane's sums: each element is summed in one order, whatever the number of threads.
    """
    m, k = output_map.shape
    d = input_map.shape[0]
    x = np.empty((n_rows, k), rows.dtype)
    y = np.empty((n_rows, k), rows.dtype)
    even = np.empty((n_rows, m), rows.dtype)
    n_blocks = (n_rows + BLOCK_ROWS - 1) // BLOCK_ROWS
    for block in prange(n_blocks):
        first = block * BLOCK_ROWS
        count = min(BLOCK_ROWS, n_rows - first)
        _project(rows, first, count, d, input_map, output_map, even_map, x, y, even)
    for task in prange(n_lanes * n_parts):
        lane = task // n_parts
        _accumulate_task(
            rows, n_rows, inverse_scale, x, y, even, lane, n_lanes, task % n_parts, n_parts,
            second[lane], even_cross[lane], third[lane], yyxx[lane], yxxx[lane],
        )  # fmt: skip
