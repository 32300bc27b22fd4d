from typing import Any

import pytest
import torch
from models import terms
from torch import Tensor, nn

from vae.data.base import Split
from vae.data.loader import BatchLoader
from vae.evaluation.terms import error_of_draws, mean_terms
from vae.model.noise import Draw
from vae.model.objectives import ELBO, Autoencoder, Needs
from vae.model.vae import VAE, Terms


class Brightness(VAE):
    """Terms that can be added up by hand: recon is the first pixel, kl the second."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor, *how: Any, **named: Any) -> Terms:
        recon, kl = x.flatten(1)[:, :2].unbind(1)
        return terms(recon, kl)


@pytest.mark.parametrize("batch_size", [1, 3, 4, 10, 64])
def test_every_image_counts_the_same_whatever_its_batch(batch_size):
    images = (torch.arange(20).view(10, 1, 1, 2) ** 2 % 251).byte()
    batches = BatchLoader(Split(images, torch.zeros(10)), batch_size)
    pixels = images.flatten(1).double() / 255
    found = mean_terms(Brightness(), batches)
    assert found == {
        "total": pytest.approx(pixels.sum().item() / 10),
        "recon": pytest.approx(pixels[:, 0].mean().item()),
        "kl": pytest.approx(pixels[:, 1].mean().item()),
        "loss": pytest.approx(pixels.sum().item() / 10),
    }


def test_unequal_batches_are_not_averaged_as_equals():
    batches = [(torch.full((n, 1, 1, 2), value), torch.zeros(n)) for n, value in ((9, 1.0), (1, 11.0))]
    assert mean_terms(Brightness(), batches) == {"total": 4.0, "recon": 2.0, "kl": 2.0, "loss": 4.0}


def test_the_loss_is_the_objective_s_with_its_schedules_at_their_end():
    annealed = ELBO(3.0, annealing="linear", warmup=5)
    annealed.prepare(steps=40, epochs=10)
    batches = [(torch.full((n, 1, 1, 2), value), torch.zeros(n)) for n, value in ((9, 1.0), (1, 11.0))]
    assert mean_terms(Brightness(), batches, annealed) == {"total": 4.0, "recon": 2.0, "kl": 2.0, "loss": 8.0}


def test_what_does_not_apply_is_left_out():
    assert mean_terms(Brightness(), [(torch.ones(2, 1, 1, 2), torch.zeros(2))], Autoencoder()).keys() == {
        *("recon", "loss")
    }


class Noisy(Brightness):
    """The total of each image is a draw of variance 4 + 5."""

    def forward(self, x: Tensor, labels: Tensor | None = None, draw: Draw = Draw()) -> Terms:  # noqa: B008
        size = (len(x),) if draw.samples is None else (draw.samples, len(x))
        recon, kl = 2 * torch.randn(size) + 100 * x.flatten(1)[:, 0], 5**0.5 * torch.randn(size)
        return terms(recon, kl)


class Several(ELBO):
    def __init__(self) -> None:
        super().__init__(1.0)
        self.needs = Needs(samples=4)


@pytest.mark.parametrize(("objective", "variance"), [(ELBO(1.0), 9.0), (Several(), 9.0 / 4)])
def test_the_error_of_the_draws_is_that_of_repeated_evaluations(objective, variance):
    images = torch.rand(2000, 1, 1, 2)  # whose own differences are far larger
    batches = [(part, torch.zeros(len(part))) for part in images.split(300)]
    assert error_of_draws(Noisy(), batches, objective, 500) == pytest.approx((variance / 500) ** 0.5, rel=0.06)
    totals = torch.tensor([mean_terms(Noisy(), batches, objective)["total"] for _ in range(300)])
    expected = error_of_draws(Noisy(), batches, objective, len(images))
    assert totals.std().item() == pytest.approx(expected, rel=0.25)  # 6 standard errors


def test_nothing_is_kept_for_gradients():
    seen = []

    class Watching(Brightness):
        def forward(self, x: Tensor, *how: Any, **named: Any) -> Terms:
            seen.append(torch.is_grad_enabled())
            return super().forward(x)

    mean_terms(Watching(), [(torch.zeros(2, 1, 1, 2), torch.zeros(2))])
    assert seen == [False]


def test_images_take_the_precision_of_the_model():
    seen = []

    class Watching(Brightness):
        def forward(self, x: Tensor, *how: Any, **named: Any) -> Terms:
            seen.append(x.dtype)
            return super().forward(x)

    for dtype in (torch.float32, torch.float64):
        mean_terms(Watching().to(dtype), [(torch.zeros(2, 1, 1, 2), torch.zeros(2))])
    assert seen == [torch.float32, torch.float64]
