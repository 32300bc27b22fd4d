import pytest

from vae.settings.compose import choices, run_suffix


def test_the_default_choice_comes_first() -> None:
    assert choices("backbone") == "dense, conv, resnet"


@pytest.mark.parametrize(
    ("overrides", "suffix"),
    [
        ("", ""),
        ("latent_dim=3,prior=correlated", "_latent_dim=3,prior=correlated"),
        ("prior.covariance=[[2.0,-0.7],[-0.7,1.5]]", "_prior.covariance=_2.0,-0.7_,_-0.7,1.5"),
        ("data.root=/a/../b c", "_data.root=_a_.._b_c"),
        ("beta=0.37214559871,optimizer.lr=0.00013377219", "_beta=0.3721,optimizer.lr=0.0001338"),
        ("optimizer.lr=1.2345678e-05,a=1e-05,version=1.23456.7", "_optimizer.lr=1.235e-05,a=1e-05,version=1.23456.7"),
        ("seed=123456,beta=1.50", "_seed=123456,beta=1.50"),
        ("x" * 500, "_" + "x" * 160),
    ],
)
def test_run_names_are_safe_and_short(overrides: str, suffix: str) -> None:
    assert run_suffix(overrides) == suffix
