import itertools

import pytest
import torch
from models import IMAGES, MORE_PRIORS, PRIORS, SHAPE, Linear, Unbounded, exact_elbo, linear_exact, linear_gaussian
from models import made as any_model
from torch import Tensor, nn

from vae.evaluation import true_posterior as module
from vae.evaluation.true_posterior import true_posterior
from vae.model.backbones import Dense
from vae.model.levels import Level
from vae.model.likelihoods import Bernoulli
from vae.model.posteriors import Diagonal, Full
from vae.model.priors import Isotropic
from vae.model.vae import VAE


def ends(latent_dim: int) -> tuple[Tensor, Tensor]:
    reach = torch.full((latent_dim,), 7.0, dtype=torch.float64)
    return -reach, reach


def unlabelled(vae: VAE, x: Tensor) -> module.TruePosterior:
    return true_posterior(vae, x, torch.zeros(len(x)).long(), *ends(vae.prior().event_shape[0]))


def points(axes: Tensor) -> Tensor:
    return torch.cartesian_prod(*axes).view(-1, len(axes))


@pytest.mark.parametrize(
    ("latent_dim", "prior", "posterior"),
    [(1, "isotropic", "diagonal"), *itertools.product([2], PRIORS, ["diagonal", "tied", "full"])],
)
def test_a_linear_model_s_posterior_is_the_exact_one(monkeypatch, latent_dim, prior, posterior):
    monkeypatch.setattr("models.N", latent_dim)
    vae, x, _ = linear_gaussian(prior, posterior)
    x = torch.cat([x, -x, x.flip(2)])
    found = unlabelled(vae, x)
    with torch.no_grad():
        exact = linear_exact(vae).q(x.flatten(1), None)
        log_joint = vae.decode(exact.mean).log_prob(x) + vae.prior().log_prob(exact.mean)
        log_p = log_joint - exact.log_prob(exact.mean)
        elbo = torch.stack([exact_elbo(vae, image) for image in x.split(1)])
        q = vae.encode(x)
    assert torch.allclose(found.log_p, log_p, atol=1e-4, rtol=0)
    assert torch.allclose(found.kl, log_p - elbo, rtol=1e-4)
    for gridded, expected in ((found.p, exact), (found.q, q)):
        assert gridded.axes.shape[:2] == (3, latent_dim) and gridded.density.dtype == torch.float64
        at = torch.stack([points(axes) for axes in gridded.axes], 1)  # (points, 3, latent_dim)
        density = expected.log_prob(at).exp().T
        assert torch.allclose(gridded.density.flatten(1), density, atol=1e-4 * density.max().item())
        step = (gridded.axes[..., 1] - gridded.axes[..., 0]).prod(1)
        assert torch.allclose(gridded.density.flatten(1).sum(1) * step, torch.ones(3).double(), atol=1e-4)


class Even(nn.Module):
    def forward(self, z: Tensor) -> Tensor:
        return z.square()


@pytest.mark.parametrize("latent_dim", [1, 2])
def test_all_modes_are_found(monkeypatch, latent_dim):
    """Where z and −z say the same there are two or four modes, of which q knows one."""
    monkeypatch.setattr("models.N", latent_dim)
    backbone = Linear()
    backbone.decoder.insert(0, Even())
    posterior = Full(backbone.features, latent_dim)
    vae = VAE(backbone, [Level(Isotropic(latent_dim), posterior, latent_dim)], Unbounded()).double()
    backbone.decoder[1].weight.data.normal_()
    for layer, value in ((posterior.mean, 1.3), (posterior.factor, -1.0)):
        nn.init.zeros_(layer.weight)
        nn.init.constant_(layer.bias, value)
    side = torch.linspace(-8, 8, {1: 20_001, 2: 501}[latent_dim], dtype=torch.float64)
    at, cell = points(side.expand(latent_dim, -1)), (side[1] - side[0]) ** latent_dim
    with torch.no_grad():
        x = vae.decode(torch.full((2, latent_dim), 1.3, dtype=torch.float64)).mean + 0.2 * torch.randn(2, *SHAPE)
        found = unlabelled(vae, x)
        joint = vae.decode(at[:, None]).log_prob(x) + vae.prior().log_prob(at)[:, None]
        log_q = vae.encode(x).log_prob(at[:, None])
    log_p = (joint.logsumexp(0).exp() * cell).log()
    assert torch.allclose(found.log_p, log_p, atol=0.03, rtol=0)
    assert torch.allclose(found.kl, (log_q.exp() * (log_q - joint)).sum(0) * cell + log_p, rtol=1e-3)
    for axes, density in zip(*found.p, strict=True):
        right = (points(axes) > 0).double()  # (points, latent_dim)
        share = density.flatten() @ right / density.sum()
        assert torch.allclose(share, torch.full_like(share, 0.5), atol=0.02)


@pytest.mark.parametrize("prior", MORE_PRIORS)
def test_any_prior_against_the_sum_over_a_large_grid(prior):
    vae = any_model("dense", prior, "full", "bernoulli").double()
    x = torch.rand(3, *IMAGES, dtype=torch.float64).round()
    found = unlabelled(vae, x)
    side = torch.linspace(-8, 8, 101, dtype=torch.float64)
    at = points(torch.stack([side, side]))
    with torch.no_grad():
        joint = vae.decode(at[:, None]).log_prob(x) + vae.prior().log_prob(at)[:, None]
        log_q = vae.encode(x).log_prob(at[:, None])
    log_p = joint.logsumexp(0) + 2 * torch.tensor(0.16).log()
    assert torch.allclose(found.log_p, log_p, atol=0.02, rtol=0)
    assert torch.allclose(found.kl, (log_q.exp() * (log_q - joint)).sum(0) * 0.16**2 + log_p, atol=0.02)


def test_a_q_far_off_and_narrow_has_its_kl():
    vae, x, log_p = linear_gaussian("correlated", "diagonal")
    assert isinstance(vae.posterior, Diagonal)
    nn.init.constant_(vae.posterior.mean.bias, 9.0)
    nn.init.zeros_(vae.posterior.log_var.weight)
    nn.init.constant_(vae.posterior.log_var.bias, -10.0)
    found = unlabelled(vae, x)
    assert torch.allclose(found.kl, log_p - exact_elbo(vae, x).detach(), rtol=1e-4)
    assert torch.allclose(found.log_p, log_p, atol=1e-4)
    assert found.q.axes[0, 0, 0] > found.p.axes[0, 0, -1]  # each has a grid where it is


def test_images_are_decoded_with_their_labels():
    vae = VAE(Dense(SHAPE, 2, hidden=[8], classes=3), [Level(Isotropic(2), Diagonal(8, 2), 2)], Bernoulli()).double()
    nn.init.normal_(vae.backbone.decoder[0].weight[:, 2:], std=5.0)
    x, labels = torch.rand(1, *SHAPE).round().expand(3, *SHAPE), torch.tensor([2, 0, 1])
    found = true_posterior(vae, x, labels, *ends(2))
    again = true_posterior(vae, x.flip(0), labels.flip(0), *ends(2))
    assert torch.allclose(found.log_p, again.log_p.flip(0)) and torch.allclose(found.kl, again.kl.flip(0))
    assert (found.log_p - found.log_p.roll(1)).abs().min() > 0.1


def test_portions_add_up_and_the_model_is_left_as_it_was(monkeypatch):
    vae = any_model("dense", "isotropic", "full", "optimal")
    x = torch.rand(2, *IMAGES)
    whole = unlabelled(vae, x)
    monkeypatch.setattr(module, "DECODED", 7 * x.numel())
    parts = unlabelled(vae, x)
    assert torch.allclose(whole.log_p, parts.log_p) and torch.allclose(whole.kl, parts.kl, atol=1e-4)
    assert vae.training and whole.p.density.dtype == torch.float64
