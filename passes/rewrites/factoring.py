"""Weights as products of smaller ones: best low-rank factors, and convolution weights cut into their groups."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gensynth.ir import Array

__all__ = ["Matrix", "factor", "grouped", "leading_vectors"]

Matrix = npt.NDArray[np.float64]


def leading_vectors(gram: Matrix, rank: int) -> Matrix:
    """Returns the eigenvectors of the largest eigenvalues of symmetric matrices, [..., n, n] -> [..., n, rank].

    Their signs are settled (the entry of largest magnitude is positive), so that machines agree on them.
    """
    vectors: Matrix = np.linalg.eigh(gram)[1][..., ::-1][..., :rank]
    largest = np.take_along_axis(vectors, np.abs(vectors).argmax(-2)[..., None, :], -2)
    return vectors * np.where(largest < 0, -1.0, 1.0)


def factor(matrices: Matrix, rank: int) -> tuple[Matrix, Matrix]:
    """Returns the best factors of a rank, [..., m, n] -> [..., m, rank] and [..., rank, n], of balanced norms.

    Their product is the nearest matrix of that rank (Eckart and Young, 1936); at full rank it is the matrix itself,
    for one factor spans the shorter side and the other is the projection on it.
    """
    if matrices.shape[-2] > matrices.shape[-1]:
        right, left = factor(np.swapaxes(matrices, -1, -2), rank)
        return np.swapaxes(left, -1, -2), np.swapaxes(right, -1, -2)
    left = leading_vectors(matrices @ np.swapaxes(matrices, -1, -2), rank)
    right = np.swapaxes(left, -1, -2) @ matrices
    size = np.linalg.norm(right, axis=-1)
    root = np.sqrt(np.where(size > 0, size, 1.0))
    return left * root[..., None, :], right / root[..., :, None]


def grouped(weight: Array, groups: int) -> Matrix:
    """Returns a convolution's weight by group: [O, C / g, h, w] -> [g, O / g, C / g, h, w]."""
    return weight.astype(np.float64).reshape(groups, len(weight) // groups, *weight.shape[1:])
