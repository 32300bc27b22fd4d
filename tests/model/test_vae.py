"""The model against a linear-Gaussian one, whose log p(x), posterior and ELBO are known in closed form."""

import itertools

import pytest
import torch
from models import (
    BACKBONES,
    IMAGES,
    LADDERS,
    LATENTS,
    MORE_PRIORS,
    POSTERIORS,
    PRIORS,
    SHAPE,
    N,
    exact_elbo,
    linear_exact,
    linear_gaussian,
    made,
)
from torch import Tensor

from vae.model.backbones import Dense
from vae.model.bounds import IWAE
from vae.model.levels import Level
from vae.model.likelihoods import Bernoulli
from vae.model.noise import Draw
from vae.model.objectives import ELBO, Batch
from vae.model.posteriors import Diagonal
from vae.model.priors import Isotropic
from vae.model.vae import VAE

DRAWS = 40_000

UNREAD = Batch(torch.empty(0))  # by most losses, which the terms are enough for


def many(x: Tensor) -> Tensor:
    return x.expand(DRAWS, *SHAPE)


@pytest.mark.parametrize("prior", PRIORS)
def test_the_exact_posterior_reaches_the_evidence(prior, mean_is):
    vae, x, log_p = linear_gaussian(prior, "exact")
    terms = vae(many(x))
    mean_is(-terms.total, log_p)
    assert torch.allclose(exact_elbo(vae, x), log_p)
    # p(x|z) p(z) / p(z|x) is p(x) at every z, without any noise.
    assert torch.allclose(terms.log_weight, log_p.expand(DRAWS))


@pytest.mark.parametrize(("prior", "posterior"), LATENTS)
def test_any_other_posterior_gives_its_elbo_below_the_evidence(prior, posterior, mean_is):
    vae, x, log_p = linear_gaussian(prior, posterior)
    elbo = exact_elbo(vae, x)
    assert elbo < log_p - 0.01
    with torch.no_grad():
        mean_is(-vae(many(x)).total, elbo)


@pytest.mark.parametrize(("prior", "posterior"), LATENTS)
@torch.no_grad()
def test_several_samples_give_the_same_elbo_and_importance_weights_the_evidence(prior, posterior, mean_is):
    vae, x, log_p = linear_gaussian(prior, posterior)
    terms = vae(x.expand(3, *SHAPE), draw=Draw(samples=DRAWS // 4))
    assert terms.recon.shape == terms.total.shape == (DRAWS // 4, 3) and terms.latent.z.shape == (DRAWS // 4, 3, N)
    assert terms.kl.shape == (3,)  # exact: the same for each sample
    assert len(terms.latent.z.flatten(0, 1).unique(dim=0)) == 3 * (DRAWS // 4)
    mean_is(-terms.total, exact_elbo(vae, x).expand(3))
    loss, _ = IWAE(DRAWS)(vae, Batch(x), 0)
    assert torch.allclose(-loss.value, log_p, atol=0.1)


@pytest.mark.parametrize("prior", PRIORS)
def test_training_closes_the_gap_to_the_best_diagonal_posterior(prior):
    """The gradients of the sampled ELBO lead to the best diagonal q, whose variances are 1/(S⁻¹)ᵢᵢ."""
    vae, x, log_p = linear_gaussian(prior, "diagonal")
    precision = linear_exact(vae).covariance.inverse()
    optimizer = torch.optim.Adam(vae.posterior.parameters(), lr=0.02)
    for step in range(400):
        optimizer.param_groups[0]["lr"] = 0.02 * (1 - step / 400)
        optimizer.zero_grad()
        loss, _ = ELBO(1.0)(vae, Batch(x.expand(64, *SHAPE)), step)
        loss.value.backward()
        optimizer.step()
    best = 0.5 * (precision.logdet() - precision.diagonal().log().sum())  # of the mean-field approximation, at most 0
    gap = exact_elbo(vae, x) - log_p
    assert best - 0.02 < gap <= best + 1e-9
    assert torch.allclose(vae.encode(x).variance[0], 1 / precision.diagonal(), rtol=0.15)


# Any model ------------------------------------------------------------------------------------------------------------

MODELS = [
    *itertools.product(BACKBONES, PRIORS, POSTERIORS, ["bernoulli", "gaussian", "learned"]),
    *itertools.product(["dense"], ["isotropic"], ["diagonal"], ["optimal", "continuous"]),
    *itertools.product(["dense"], MORE_PRIORS, ["diagonal", "full"], ["bernoulli"]),
    ("conv", "vamp", "full", "optimal"),
    ("conv", "learned", "tied", "continuous"),
    ("two vectors", "isotropic", "diagonal", "bernoulli"),
    ("two vectors", "vamp", "full", "learned"),
    ("maps", "correlated", "tied", "gaussian"),
    ("maps", "flow", "diagonal", "bernoulli"),
]


@pytest.mark.parametrize("names", MODELS, ids="-".join)
def test_terms_are_of_each_image_and_every_weight_learns(names):
    vae, x = made(*names), torch.rand(5, *IMAGES)
    terms = vae(x)
    assert terms.recon.shape == terms.kl.shape == terms.total.shape == (5,)
    z = torch.cat([latent.z for latent in terms.latents], -1)
    assert z.shape == (5, vae.numbers) and terms.p_x.mean.shape == x.shape
    assert torch.allclose(terms.recon, -vae.decode(z).log_prob(x), rtol=1e-4)
    assert torch.equal(terms.total, terms.recon + terms.kl)
    assert (terms.kl >= 0).all() or names[1] in ("mixture", "vamp", "flow")  # whose KL is that of one sample
    ELBO(1.0).loss(terms, UNREAD, 0).value.backward()
    for name, weight in vae.named_parameters():
        if weight.requires_grad:
            assert weight.grad is not None and weight.grad.isfinite().all() and weight.grad.any(), name
    frozen = [name for name, weight in vae.named_parameters() if not weight.requires_grad]
    assert frozen == (["likelihood.log_sigma"] if names[-1] == "gaussian" else [])


@pytest.mark.parametrize("names", MODELS, ids="-".join)
def test_an_image_s_terms_do_not_depend_on_its_batch(names):
    vae, x = made(*names).double().eval(), torch.rand(5, *IMAGES, dtype=torch.float64)
    together, *alone = (vae(images, draw=Draw(mean=True)) for images in (x, *x.split(1)))  # without noise
    assert len(together.total.detach().unique()) == 5
    for term in ("recon", "kl", "total"):
        assert torch.allclose(getattr(together, term), torch.cat([getattr(terms, term) for terms in alone]))


def test_noise_is_drawn_anew_for_every_image_and_every_pass():
    vae, x = made("dense", "isotropic", "diagonal", "bernoulli"), torch.rand(1, *IMAGES).expand(4, *IMAGES)
    first, second = vae(x).latent.z, vae(x).latent.z
    assert len(torch.cat([first, second]).detach().unique(dim=0)) == 8
    torch.manual_seed(3)
    again = vae(x).latent.z
    torch.manual_seed(3)
    assert torch.equal(vae(x).latent.z, again)


@pytest.mark.parametrize("backbone", [*BACKBONES, *(pytest.param(name, marks=pytest.mark.slow) for name in LADDERS)])
def test_one_batch_can_be_overfitted(backbone):
    vae = made(backbone, "correlated", "tied", "bernoulli")
    x = (torch.rand(8, 1, 1, 1) > torch.linspace(0, 1, 72).view(1, 1, 9, 8)).float().expand(8, *IMAGES)
    optimizer = torch.optim.Adam(vae.parameters(), lr=0.01)
    totals = []
    for _ in range(150):
        loss, _ = ELBO(1.0)(vae, Batch(x), 0)
        optimizer.zero_grad()
        loss.value.backward()
        optimizer.step()
        totals.append(loss.value.item())
    assert totals[0] > 130 and sum(totals[-10:]) / 10 < 0.4 * totals[0]


@pytest.mark.parametrize("prior", PRIORS | MORE_PRIORS)
def test_several_samples_are_several_passes(prior):
    vae, x = made("dense", prior, "full", "bernoulli").double(), torch.rand(4, *IMAGES, dtype=torch.float64)
    terms = vae(x, draw=Draw(samples=3))
    for i in range(3):
        assert torch.allclose(terms.recon[i], -vae.decode(terms.latent.z[i]).log_prob(x))
        sampled = terms.latent.q.log_prob(terms.latent.z[i]) - terms.latent.p.log_prob(terms.latent.z[i])
        exact = terms.kl.shape == (4,)
        assert exact == (prior in ("isotropic", "correlated", "learned"))
        assert exact or torch.allclose(terms.kl[i], sampled)
    torch.manual_seed(1)
    single = vae(x)
    torch.manual_seed(1)
    one = vae(x, draw=Draw(samples=1))
    for value, same in ((one.recon, single.recon), (one.kl, single.kl), (one.latent.z, single.latent.z)):
        assert torch.allclose(value.squeeze(0), same)


def test_at_the_mean_there_is_no_noise():
    vae, x = made("dense", "isotropic", "diagonal", "bernoulli"), torch.rand(4, *IMAGES)
    terms = vae(x, draw=Draw(mean=True))
    assert torch.equal(terms.latent.z, vae.encode(x).mean)
    assert torch.equal(terms.recon, vae(x, draw=Draw(mean=True)).recon)
    assert torch.allclose(terms.recon, -vae.decode(vae.encode(x).mean).log_prob(x))
    assert torch.allclose(terms.kl, vae(x).kl)


def test_latents_of_any_shape_are_decoded():
    vae, z = made("conv", "isotropic", "diagonal", "bernoulli").eval(), torch.randn(2, 3, 4, N)
    mean = vae.decode(z).mean
    assert mean.shape == (2, 3, 4, *IMAGES)
    assert torch.allclose(mean[1, 2], vae.decode(z[1, 2]).mean, atol=1e-6)


def test_training_starts_at_the_images():
    images = torch.rand(6, *IMAGES)
    vae = made("dense", "vamp", "diagonal", "bernoulli")
    vae.start_at(images, torch.zeros(len(images)).long())
    assert torch.allclose(vae.prior.logits.sigmoid(), images[:3], atol=0.01001)
    *_, bias = vae.backbone.decoder.parameters()
    assert torch.allclose(bias.sigmoid().view(IMAGES), images.mean(0), atol=1e-3)


@pytest.mark.parametrize("labels", [None, 1, torch.tensor([0, 1, 2, 0, 1])])
def test_samples_are_of_the_classes_asked_for(labels):
    backbone = Dense(SHAPE, N, hidden=[4], classes=0 if labels is None else 3)
    vae = VAE(backbone, [Level(Isotropic(N), Diagonal(4, N), N)], Bernoulli())
    torch.manual_seed(3)
    found = vae.sample(5, labels)
    torch.manual_seed(3)
    z = vae.prior().sample(torch.Size([5]))
    for i in range(5):
        label = None if labels is None else torch.as_tensor(labels).expand(5)[i : i + 1]
        assert torch.allclose(found[i], vae.decode(z[i : i + 1], label).mean[0])


def test_several_samples_of_an_image_share_its_label():
    vae = VAE(Dense(SHAPE, N, hidden=[4], classes=3), [Level(Isotropic(N), Diagonal(4, N), N)], Bernoulli())
    x, labels = torch.rand(6, *SHAPE).round(), torch.tensor([0, 1, 2, 2, 1, 0])
    terms = vae(x, labels, draw=Draw(samples=3))
    for each, z in zip(terms.recon, terms.latent.z, strict=True):
        assert torch.allclose(each, -vae.decode(z, labels).log_prob(x))


@pytest.mark.parametrize("backbone", BACKBONES)
def test_densities_are_computed_in_32_bits_or_more(backbone):
    vae = made(backbone, "isotropic", "diagonal", "bernoulli")
    with torch.autocast("cpu", torch.bfloat16):
        params = vae.backbone.image(torch.randn(3, N))
        found = vae.decode(torch.randn(3, N)).base_dist.logits
    assert params.dtype == torch.bfloat16 and found.dtype == torch.float32
    assert vae.double().decode(torch.randn(3, N).double()).base_dist.logits.dtype == torch.float64
