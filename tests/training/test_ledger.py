"""What a run says of its loss: checked against the loss itself where it states numbers."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from vae.model.build import build, build_model
from vae.model.objectives import Batch
from vae.training.ledger import Ledger

X, LABELS = torch.rand(2, 1, 5, 4), torch.zeros(2, dtype=torch.long)


@pytest.fixture
def ledger(compose: Callable[..., dict[str, Any]]) -> Callable[..., Ledger]:
    """The ledger of a configuration."""

    def of(*overrides: str) -> Ledger:
        config = compose("data=strokes", "backbone.hidden=[8]", *overrides)
        model = build_model(config, (1, 5, 4), 0)
        return Ledger.of(build(config, "objective"), model, X, LABELS)

    return of


@pytest.mark.parametrize("posterior", ["diagonal", "full"])
@pytest.mark.parametrize(
    ("prior", "how"),
    [("isotropic", "exact"), ("correlated", "exact"), ("learned", "exact"), ("vamp", "sample"), ("flow", "sample")],
)
def test_it_says_whether_the_kl_is_exact(ledger: Callable[..., Ledger], prior: str, posterior: str, how: str) -> None:
    recon, kl = ledger(f"prior={prior}", f"posterior={posterior}").entries
    assert kl.formula.endswith({"exact": ", exact", "sample": ", at the sample of z"}[how])
    assert "exact" not in recon.formula and recon.unit == kl.unit == "nats"
    assert "pixels" in recon.reduction and "latent dimensions" in kl.reduction


@pytest.mark.parametrize(
    ("overrides", "kl", "penalties"),
    [
        (["posterior=codebook"], "−log p(codes)", ["0.25 × ‖h − sg(e)‖²"]),
        (["posterior=codebook", "posterior.decay=null"], "−log p(codes)", ["0.25 × ‖h − sg(e)‖²", "1 × ‖sg(h) − e‖²"]),
        (["posterior=gumbel"], "−H(q) − log p(codes)", []),
    ],
)
def test_it_has_the_penalties_of_codes(
    ledger: Callable[..., Ledger], overrides: list[str], kl: str, penalties: list[str]
) -> None:
    found = ledger(*overrides)
    names = ["commitment", "codebook"][: len(penalties)]
    expected = dict(zip([f"ledger/{name}" for name in names], penalties, strict=True))
    assert found.flat() == {"ledger/recon": "1 × −E_q[log p(x|z)]", "ledger/kl": f"1 × {kl}", **expected}
    assert [entry.unit for entry in found.entries] == ["nats", "nats", *[""] * len(penalties)]


@pytest.mark.parametrize(
    ("overrides", "weight"),
    [
        (["beta=4"], "4"),
        (["beta=4", "objective.annealing=linear", "objective.warmup=10"], "4, rising from 0 over 10 epochs (linear)"),
        (["beta=0.5", "objective.annealing=cyclical"], "0.5, 4 cycles, each rising from 0 to 1 over its first half"),
    ],
)
def test_it_says_how_beta_changes(ledger: Callable[..., Ledger], overrides: list[str], weight: str) -> None:
    found = ledger(*overrides)
    assert [entry.weight for entry in found.entries] == ["1", weight]
    assert found.flat() == {
        "ledger/recon": "1 × −E_q[log p(x|z)]",
        "ledger/kl": f"{weight} × KL(q(z|x) ‖ p(z)), exact",
    }
    assert found.lines()[1].startswith(f"{weight} × kl: ")


@pytest.mark.parametrize("objective", ["tc", "mmd", "dip"])
def test_its_weights_are_those_of_the_loss(
    compose: Callable[..., dict[str, Any]], ledger: Callable[..., Ledger], objective: str
) -> None:
    overrides = [f"objective={objective}", *(["beta=6"] if objective != "mmd" else ["objective.alpha=0.3"])]
    config = compose("data=strokes", "backbone.hidden=[8]", *overrides)
    built, model = build(config, "objective"), build_model(config, (1, 5, 4), 0)
    built.prepare(10, 1)
    loss, terms = built(model, Batch(torch.rand(16, 1, 5, 4)), 0)
    values = {"recon": terms.recon.mean(), "kl": terms.kl.mean()} | dict(loss.parts)
    entries = {entry.term: float(entry.weight) for entry in ledger(*overrides).entries}
    dip = {"dip_off", "dip_on"} & entries.keys()
    weighted = sum(values[term] * weight for term, weight in entries.items() if term not in dip)
    assert torch.allclose(loss.value, weighted + (values["dip"] if dip else 0))


@pytest.mark.parametrize(
    ("sigma", "said"),
    [
        ("0.5", "σ = 0.5; in units of the squared error β is 2σ²β = 2"),
        ("learned", "σ learned; in units of the squared error β is 2σ²β, β = 4"),
        ("optimal", "σ optimal for each batch; in units of the squared error β is 2σ²β, β = 4"),
    ],
)
def test_it_says_what_the_noise_makes_of_beta(ledger: Callable[..., Ledger], sigma: str, said: str) -> None:
    found = ledger("likelihood=gaussian", f"likelihood.sigma={sigma}", "beta=4")
    assert found.noise == said == found.lines()[-1] == found.flat()["ledger/noise"]
    assert ledger("beta=4").noise == ""


def test_a_fixed_sigma_s_effective_beta_is_that_of_a_squared_error() -> None:
    """recon + β kl = (‖x − x̂‖² + 2σ²β kl) / 2σ² + constant."""
    sigma, beta = 0.5, 4.0
    x, mean = torch.rand(3, 5), torch.rand(3, 5)
    recon = -torch.distributions.Normal(mean, sigma).log_prob(x).sum(1)
    error = (x - mean).square().sum(1)
    assert torch.allclose((2 * sigma**2 * recon - error).diff(), torch.zeros(2), atol=1e-5)
    assert 2 * sigma**2 * beta == 2  # what the ledger says above


def test_it_is_a_table_in_tensorboard(ledger: Callable[..., Ledger]) -> None:
    lines = ledger("likelihood=gaussian", "beta=4").markdown().splitlines()
    assert lines[0] == "| term | formula | weight | reduction | unit |"
    assert lines[3].startswith("| kl | KL(q(z\\|x) ‖ p(z)), exact | 4 |")
    assert lines[-1].startswith("σ = ")
