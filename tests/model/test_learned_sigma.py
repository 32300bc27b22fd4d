import numpy as np
import pytest
import torch

from vae.model.backbones import Dense
from vae.model.levels import Level
from vae.model.likelihoods import Gaussian
from vae.model.posteriors import Diagonal
from vae.model.priors import Isotropic
from vae.model.vae import VAE

# A learned σ on images that are no digits -----------------------------------------------------------------------------


def blobs(count: int) -> torch.Tensor:
    """Grey images of one soft spot each, of any place, width and brightness, and a little noise: (count, 1, 12, 10)."""
    draws = np.random.default_rng(0)
    y, x = np.mgrid[0:12, 0:10]
    row, column, width, light = (
        draws.uniform(low, high, (count, 1, 1)) for low, high in ((3, 9), (3, 7), (1.5, 4), (0.3, 0.9))
    )
    spots = 0.1 + light * np.exp(-((x - column) ** 2 + (y - row) ** 2) / (2 * width**2))
    noisy = spots + 0.02 * draws.standard_normal(spots.shape)
    return torch.from_numpy(noisy.clip(0, 1).astype(np.float32))[:, None]


def trained(x: torch.Tensor, batch: int, epochs: int, lr: float = 1e-3) -> tuple[VAE, list[tuple[float, float]]]:
    """A small model, and after each epoch log σ − ½ log MSE of all images, and their kl."""
    backbone = Dense((1, 12, 10), 3, hidden=[64, 32])
    model = VAE(backbone, [Level(Isotropic(3), Diagonal(backbone.features, 3), 3)], Gaussian("learned"))
    model.start_at(x, torch.zeros(len(x)), lr)
    optimizer = torch.optim.Adam(model.parameters(), lr)
    found = []
    for _ in range(epochs):
        for images in x[torch.randperm(len(x))].split(batch):
            optimizer.zero_grad()
            model(images).total.mean().backward()
            optimizer.step()
        with torch.no_grad():
            terms = model(x)
            error = (x - terms.p_x.mean).square().mean().sqrt().log()
            found.append(((terms.p_x.base_dist.stddev.flatten()[0].log() - error).item(), terms.kl.mean().item()))
    return model, found


def test_a_learned_sigma_begins_at_the_error_of_the_mean_image():
    x = blobs(200)
    likelihood = Gaussian("learned")
    likelihood.start_at(x, torch.zeros(len(x)), 1e-3)
    residual = x.numpy() - x.numpy().mean(0)
    sigma = likelihood(torch.zeros(1, 1, 12, 10)).base_dist.stddev.unique().item()
    assert sigma == pytest.approx((residual**2).mean() ** 0.5, rel=1e-5) and sigma < 0.3
    again = Gaussian("learned")
    again.load_state_dict(likelihood.state_dict())
    assert again(torch.zeros(1, 1, 12, 10)).base_dist.stddev.unique().item() == sigma


@pytest.mark.parametrize(("batch", "steps"), [(320, 6), (36, 54), (5, 384)])
def test_a_learned_sigma_is_right_after_an_epoch_whatever_the_number_of_steps(batch, steps):
    x = blobs(1920)
    assert len(x.split(batch)) == steps
    _, ((off, _),) = trained(x, batch, epochs=1)
    assert abs(off) < 0.05


def test_the_posterior_does_not_collapse_under_a_learned_sigma():
    _, epochs = trained(blobs(960), 32, epochs=4)
    assert epochs[-1][1] > 3 and all(abs(off) < 0.05 for off, _ in epochs)  # kl in nats


@pytest.mark.parametrize("lr", [1e-4, 1e-2])
def test_a_learned_sigma_follows_at_any_learning_rate(lr):
    _, epochs = trained(blobs(960), 32, epochs=3, lr=lr)
    assert abs(epochs[-1][0]) < 0.08


def test_the_gradient_of_a_learned_sigma_is_the_formula_s_within_bounds():
    """−∂ log p(x|z) / ∂ log σ = D (1 − MSE / σ²), in log σ whatever its speed."""
    x = blobs(50)
    likelihood = Gaussian("learned")
    likelihood.start_at(x, torch.zeros(len(x)), 1e-4)
    logits = x.mean(0, keepdim=True).logit().expand_as(x)
    for shift, bounded in ((0.0, False), (0.02, False), (1.0, True)):
        likelihood.zero_grad()
        with torch.no_grad():
            likelihood.learned.free.fill_(shift / likelihood.learned.speed)
        p_x = likelihood(logits)
        (-p_x.log_prob(x).mean()).backward()
        sigma = p_x.base_dist.stddev.unique().item()
        exact = 120 * (1 - (x - p_x.mean).square().mean().item() / sigma**2)
        expected = 0.25 * 120 if bounded else exact
        assert likelihood.learned.free.grad.item() == pytest.approx(expected, abs=0.01)
