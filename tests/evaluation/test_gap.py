import pytest
import torch
from models import IMAGES, LATENTS, PRIORS, SHAPE, N, exact_elbo, linear_exact, linear_gaussian, made
from torch import Tensor, nn
from torch.distributions import Independent, Laplace, MultivariateNormal, kl_divergence

from vae.evaluation.gap import Gap, family, inference_gap
from vae.model.backbones import Dense
from vae.model.distributions import DiagonalNormal, FullNormal
from vae.model.levels import Level
from vae.model.likelihoods import Bernoulli
from vae.model.posteriors import Diagonal, Full, Tied
from vae.model.priors import Isotropic, mixture
from vae.model.vae import VAE

COPIES, SAMPLES, STEPS = 20, 1000, 500


def gap_of(vae: VAE, x: Tensor, steps: int = STEPS) -> Gap:
    """Of many copies of an image, each with a q of its own."""
    return inference_gap(vae, x.expand(COPIES, *SHAPE), torch.zeros(COPIES).long(), SAMPLES, steps)


def correlations(sigma: Tensor) -> Tensor:
    scale = sigma.diagonal(dim1=-2, dim2=-1).sqrt()
    return sigma / (scale.unsqueeze(-1) * scale.unsqueeze(-2))


@torch.no_grad()
def best_elbo(vae: VAE, posterior: str, log_p: Tensor) -> Tensor:
    """log p(x) − KL(N(m, DCD) ‖ N(m, P⁻¹)) of the scales D that solve Dᵢᵢ ((P ∘ C) D1)ᵢ = 1, in two dimensions."""
    if posterior == "full":
        return log_p
    precision = linear_exact(vae).covariance.inverse()
    correlation = torch.eye(N).double() if posterior == "diagonal" else correlations(vae.prior().covariance_matrix)
    product = precision * correlation
    ratio = (product[0, 0] / product[1, 1]).sqrt()  # of the second scale and the first
    first = (product[0, 0] + product[0, 1] * ratio).rsqrt()
    scales = torch.stack([first, first * ratio])
    zero = torch.zeros(N).double()
    q = MultivariateNormal(zero, correlation * scales.outer(scales))
    return log_p - kl_divergence(q, MultivariateNormal(zero, precision_matrix=precision))


@pytest.mark.parametrize("prior", PRIORS)
def test_the_exact_posterior_leaves_no_gap(prior):
    vae, x, log_p = linear_gaussian(prior, "exact")
    found = gap_of(vae, x)
    assert torch.allclose(found.elbo, log_p, atol=1e-6)
    assert (found.log_p - log_p).abs().max() < 0.1
    assert (found.best_elbo - log_p).abs().max() < 0.03  # the noise of the steps, not all of which averages out


@pytest.mark.parametrize(("prior", "posterior"), LATENTS)
def test_the_gaps_of_a_linear_model_are_those_of_the_formulas(prior, posterior, mean_is):
    vae, x, log_p = linear_gaussian(prior, posterior)
    best, elbo = best_elbo(vae, posterior, log_p), exact_elbo(vae, x).detach()
    found = gap_of(vae, x)
    assert all(part.shape == (COPIES,) and part.dtype == torch.float64 for part in found)
    assert ((found.log_p - log_p).abs() <= 6 * found.error + 1e-9).all() and (found.error < 0.1).all()
    mean_is(found.elbo, elbo)
    assert best - elbo > 0.1
    assert (found.best_elbo.mean() - best).abs() < 0.02
    assert (found.approximation.mean() - (log_p - best)).abs() < 0.03
    error = found.elbo.std().item() / COPIES**0.5
    assert (found.amortisation.mean() - (best - elbo)).abs() < 6 * error + 0.02
    assert torch.allclose(found.approximation + found.amortisation, found.log_p - found.elbo)


def test_a_diagonal_posterior_cannot_have_correlations():
    vae, _, log_p = linear_gaussian("correlated", "diagonal")
    precision = linear_exact(vae).covariance.inverse()
    mean_field = 0.5 * (precision.logdet() - precision.diagonal().log().sum())
    assert torch.allclose(best_elbo(vae, "diagonal", log_p) - log_p, mean_field)


def test_without_steps_there_is_no_better_q():
    vae, x, _ = linear_gaussian("correlated", "tied")
    found = gap_of(vae, x, steps=0)
    assert torch.equal(found.best_elbo, found.elbo) and (found.amortisation == 0).all()


def test_a_kl_without_a_formula_leads_to_the_same_q(monkeypatch):
    vae, x, log_p = linear_gaussian("isotropic", "diagonal")
    best = best_elbo(vae, "diagonal", log_p)
    half = DiagonalNormal(torch.zeros(2, N).double(), torch.ones(2, N).double())
    monkeypatch.setattr(
        vae.prior, "forward", lambda state=None: mixture(torch.zeros(2).double(), half)
    )  # two halves of N(0, I)
    assert (gap_of(vae, x).best_elbo.mean() - best).abs() < 0.02


@pytest.mark.parametrize("scale", [1e-3, 10.0])
def test_the_encoder_may_be_far_too_sure_or_unsure(scale):
    vae, x, log_p = linear_gaussian("isotropic", "exact")
    vae.posterior.covariance = vae.posterior.covariance * scale**2
    best = gap_of(vae, x).best_elbo
    assert (best.mean() - log_p).abs() < 0.03


@pytest.mark.parametrize("prior", ["mixture", "flow", "learned", "vamp"])
@pytest.mark.parametrize("posterior", ["diagonal", "full"])
def test_the_model_is_left_as_it_was(prior, posterior):
    vae = made("dense", prior, posterior, "optimal")
    before = {name: value.clone() for name, value in vae.state_dict().items()}
    learned = [weight.requires_grad for weight in vae.parameters()]
    x = torch.rand(6, *IMAGES)
    found = inference_gap(vae, x, torch.zeros(6).long(), 100, 20)
    assert all(torch.equal(value, before[name]) for name, value in vae.state_dict().items())
    assert all(weight.grad is None for weight in vae.parameters())
    assert [weight.requires_grad for weight in vae.parameters()] == learned
    assert vae.training and all(module.training for module in vae.modules())
    assert not any(part.requires_grad for part in found) and all(part.isfinite().all() for part in found)


def test_a_conditional_model_is_told_the_label():
    vae = VAE(Dense(SHAPE, N, hidden=[8], classes=3), [Level(Isotropic(N), Diagonal(8, N), N)], Bernoulli()).double()
    nn.init.normal_(vae.backbone.decoder[0].weight, std=5.0)  # each class has a map of its own from latents to images
    nn.init.normal_(vae.backbone.decoder[2].weight, std=0.5)
    x, labels = torch.rand(1, *SHAPE).round().expand(3, *SHAPE), torch.tensor([2, 0, 1])
    first, second = (inference_gap(vae, x, order, 1000, 100) for order in (labels, labels.flip(0)))
    for part, other in ((first.log_p, second.log_p), (first.best_elbo, second.best_elbo)):
        assert (part - other.flip(0)).abs().max() < 0.2 < (part - part.roll(1)).abs().min()
    assert (first.amortisation > 0).all()


def test_the_family_is_that_of_the_posterior():
    loc, factor = torch.randn(4, N), torch.randn(4, N, N).tril() + 3 * torch.eye(N)
    diagonal = DiagonalNormal(loc, factor.diagonal(dim1=1, dim2=2))
    full = FullNormal(loc, factor)
    for posterior, q, numbers in ((Diagonal(1, N), diagonal, 4), (Tied(1, N), full, 4), (Full(1, N), full, 5)):
        free, member = family(posterior, q)
        assert free.shape == (4, numbers) and type(member(free)) is type(q)
        assert torch.allclose(member(free).mean, q.mean)
        assert torch.allclose(member(free).covariance_matrix, q.covariance_matrix)
        other = member(torch.randn_like(free)).covariance_matrix
        same = torch.allclose(correlations(other), correlations(q.covariance_matrix), atol=1e-5)
        assert same == (not isinstance(posterior, Full))


def test_a_posterior_that_is_no_gaussian_has_no_family_to_search(monkeypatch):
    vae, x, _ = linear_gaussian("isotropic", "full")
    monkeypatch.setattr(vae, "encode", lambda x, labels: Independent(Laplace(torch.zeros(1, N), 1.0), 1))
    with pytest.raises(ValueError, match=r"^Independent: must be a Gaussian"):
        inference_gap(vae, x, torch.zeros(1), 10, 10)
