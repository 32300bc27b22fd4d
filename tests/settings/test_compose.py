import pytest

from vae.settings.compose import choices, run_suffix


def test_the_default_choice_comes_first() -> None:
    assert choices("backbone") == "dense, conv"


@pytest.mark.parametrize(
    ("overrides", "suffix"),
    [
        ("", ""),
        ("latent_dim=3,prior=correlated", "_latent_dim=3,prior=correlated"),
        ("prior.covariance=[[2.0,-0.7],[-0.7,1.5]]", "_prior.covariance=_2.0,-0.7_,_-0.7,1.5"),
        ("data.root=/a/../b c", "_data.root=_a_.._b_c"),
        ("x" * 500, "_" + "x" * 160),
    ],
)
def test_run_names_are_safe_and_short(overrides: str, suffix: str) -> None:
    assert run_suffix(overrides) == suffix
