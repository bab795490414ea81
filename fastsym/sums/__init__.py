"""Sums over samples in one pass: what a pass adds up, and how rows get to the kernels.

`Reducer` says what a sum is: a staged block is added, two sums are merged, the state is written to
arrays and taken up again, and a result is read at the end. Moments, residuals, masks and Hermite
moments are reducers. `layout` alone knows how sums are stored.
"""
