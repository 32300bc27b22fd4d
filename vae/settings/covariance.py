"""Is a matrix that a user wrote a covariance? Imports no torch, so that a wrong one is refused at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

LARGEST, SMALLEST = 1e30, 1e-30  # variance: squares and inverses of these still fit into single precision
SINGULAR = 1e-6  # smallest over largest eigenvalue: below this a Cholesky factor in single precision is noise


def check_covariance(
    key: str, matrix: Sequence[Sequence[float]] | np.ndarray, size: int, unit_diagonal: bool = False
) -> None:
    """Raise a one-line `ValueError` that begins with `key=matrix` unless the matrix is a covariance.

    Σ = Σᵀ ∈ ℝ^(size×size), xᵀΣx > 0 for every x ≠ 0; with `unit_diagonal` also Σᵢᵢ = 1: a correlation.
    """
    import numpy as np

    def refuse(why: str) -> ValueError:
        return ValueError(f"{key}={' '.join(str(shown).split())}: must {why}")

    shown = matrix.tolist() if hasattr(matrix, "tolist") else matrix  # numpy would show it on several lines
    try:
        values = np.asarray(matrix)
    except ValueError:
        raise refuse(f"be {size}×{size}, but its rows differ in length") from None
    if values.shape != (size, size):
        found = "×".join(map(str, values.shape)) if values.ndim > 1 else "not a list of rows"
        raise refuse(f"be {size}×{size}, but it is {found}")
    if values.dtype.kind not in "iuf" or not np.isfinite(values).all():
        raise refuse("hold finite numbers only")
    largest = np.abs(values).max()
    if largest > LARGEST or 0 < largest < SMALLEST:
        raise refuse(f"have a largest entry between {SMALLEST:g} and {LARGEST:g}")
    asymmetry = np.abs(values - values.T)
    i, j = sorted(map(int, np.unravel_index(asymmetry.argmax(), values.shape)))
    if asymmetry[i, j] > 1e-8 * largest:
        raise refuse(f"be symmetric, but its entries [{i}][{j}] and [{j}][{i}] differ by {asymmetry[i, j]:.3g}")
    worst = int(np.abs(values.diagonal() - 1).argmax())
    if unit_diagonal and abs(values[worst, worst] - 1) > 1e-6:
        raise refuse(f"have a diagonal of ones, but its entry [{worst}][{worst}] is {values[worst, worst]:.6g}")
    eigenvalues = np.linalg.eigvalsh(values)
    if eigenvalues[0] <= SINGULAR * eigenvalues[-1]:
        almost = f", within {SINGULAR:g} of its largest, {eigenvalues[-1]:.3g}" if eigenvalues[0] > 0 else ""
        raise refuse(f"be positive definite, but its smallest eigenvalue is {eigenvalues[0]:.3g}{almost}")
