import subprocess
import sys

import numpy as np
import pytest

from vae.settings.covariance import check_covariance

SINGULAR = [[1.0, 1.0], [1.0, 1.0 + 1e-9]]


@pytest.mark.parametrize(
    "matrix",
    [[[2.0, -0.7], [-0.7, 1.5]], ((1, 0), (0, 1)), np.array([[1.0, 0.4], [0.4, 0.5]]), [[1e-8, 0.0], [0.0, 2e-8]]],
)
def test_accepts(matrix):
    check_covariance("prior.covariance", matrix, 2)


def test_accepts_what_a_product_rounds():
    factor = np.random.default_rng(0).normal(size=(8, 12)).astype(np.float32)
    covariance = factor @ np.diag(np.arange(1, 13)).astype(np.float32) @ factor.T
    check_covariance("k", ((covariance + covariance.T) / 2).tolist(), 8)


@pytest.mark.parametrize(
    ("matrix", "why"),
    [
        ([[1, 2], [2, 1]], "=[[1, 2], [2, 1]]: must be positive definite, but its smallest eigenvalue is -1"),
        ([[1, 1], [1, 1]], "must be positive definite, but its smallest eigenvalue is "),
        (SINGULAR, "smallest eigenvalue is 5e-10, within 1e-06 of its largest, 2"),
        ([[0.0, 0.0], [0.0, 0.0]], "smallest eigenvalue is 0"),
        ([[1.0, 0.25], [0.5, 1.0]], "must be symmetric, but its entries [0][1] and [1][0] differ by 0.25"),
        (np.array([[1.0, 0.25], [0.5, 1.0]]), "=[[1.0, 0.25], [0.5, 1.0]]: must be symmetric"),
        ([[1, 0, 0], [0, 1, 0]], "must be 2×2, but it is 2×3"),
        (np.eye(3), "must be 2×2, but it is 3×3"),
        ([1, 1], "must be 2×2, but it is not a list of rows"),
        (1.0, "must be 2×2, but it is not a list of rows"),
        (None, "must be 2×2, but it is not a list of rows"),
        ([[1, 0], [0]], "must be 2×2, but its rows differ in length"),
        ([[1, float("nan")], [float("nan"), 1]], "must hold finite numbers only"),
        ([[float("inf"), 0], [0, 1]], "must hold finite numbers only"),
        ([["1", "0"], ["0", "1"]], "must hold finite numbers only"),
        ([[1, None], [None, 1]], "must hold finite numbers only"),
        ([[True, False], [False, True]], "must hold finite numbers only"),
        ([[10**400, 0], [0, 1]], "must hold finite numbers only"),
        ([[1e308, 0], [0, 1e308]], "must have a largest entry between 1e-30 and 1e+30"),
        ([[1e-320, 0], [0, 1e-320]], "must have a largest entry between 1e-30 and 1e+30"),
    ],
)
def test_refuses_in_one_line(matrix, why):
    with pytest.raises(ValueError) as caught:
        check_covariance("prior.covariance", matrix, 2)
    message = str(caught.value)
    assert message.startswith("prior.covariance=") and why in message and "\n" not in message


def test_refuses_unequal_variances_only_where_asked():
    check_covariance("data.correlation", [[1.0, 0.4], [0.4, 0.5]], 2)
    with pytest.raises(ValueError, match=r"must have a diagonal of ones, but its entry \[1\]\[1\] is 0\.5$"):
        check_covariance("data.correlation", [[1.0, 0.4], [0.4, 0.5]], 2, unit_diagonal=True)


def test_accepts_a_configured_list():
    from omegaconf import OmegaConf

    check_covariance("k", OmegaConf.create([[1.0, 0.4], [0.4, 0.5]]), 2)
    with pytest.raises(ValueError, match=r"^k=\[\[1, 2\], \[2, 1\]\]: "):
        check_covariance("k", OmegaConf.create([[1, 2], [2, 1]]), 2)


def test_imports_no_torch():
    code = (
        "import sys, vae.settings.covariance as c; c.check_covariance('k', [[1]], 1); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
