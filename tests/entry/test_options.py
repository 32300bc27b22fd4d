import pytest

from vae.entry.options import in_order


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("beta=4 -m latent_dim=2,3", "-m beta=4 latent_dim=2,3"),
        ("latent_dim=2,3 --multirun", "--multirun latent_dim=2,3"),
        ("beta=4 --cfg job epochs=3 -p data", "--cfg job -p data beta=4 epochs=3"),
        ("~optimizer.betas +a=1 beta=4 beta=4", "~optimizer.betas +a=1 beta=4 beta=4"),
        ("", ""),
    ],
)
def test_options_come_before_overrides(typed: str, read: str) -> None:
    assert in_order(typed.split()) == read.split()


@pytest.mark.parametrize(
    ("typed", "line"),
    [
        ("--beta=4", "--beta=4: no such option; write beta=4"),
        ("latent_dim=3 --beta 4", "--beta: no such option; write beta=4"),
        ("--latent-dim=3", "--latent-dim=3: no such option; write latent_dim=3"),
        ("--prior=correlated -m", "--prior=correlated: no such option; write prior=correlated"),
        ("--conditional beta=4", "--conditional: no such option; write conditional=…"),
        ("-e=3", "-e=3: no such option; write e=3"),
        ("--cfg jobs", "argument --cfg/-c: invalid choice: 'jobs' (choose from "),
    ],
)
def test_what_is_no_option_is_refused_with_the_key(typed: str, line: str) -> None:
    with pytest.raises(ValueError) as caught:
        in_order(typed.split())
    assert str(caught.value).startswith(line)
