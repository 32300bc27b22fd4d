import pytest
import torch
from torch import Tensor, nn

from vae.data.base import Part
from vae.data.loader import BatchLoader
from vae.evaluation.terms import mean_terms
from vae.model import Terms


class Brightness(nn.Module):
    """Terms that can be added up by hand: recon is the first pixel, kl the second."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Terms:
        recon, kl = x.flatten(1)[:, :2].unbind(1)
        return Terms(recon, kl, z=x, q=None, p=None, p_x=None)  # type: ignore[arg-type]


@pytest.mark.parametrize("batch_size", [1, 3, 4, 10, 64])
def test_every_image_counts_the_same_whatever_its_batch(batch_size):
    images = (torch.arange(20).view(10, 1, 1, 2) ** 2 % 251).byte()
    batches = BatchLoader(Part(images, torch.zeros(10)), batch_size)
    pixels = images.flatten(1).double() / 255
    found = mean_terms(Brightness(), batches)
    assert found == {
        "total": pytest.approx(pixels.sum().item() / 10),
        "recon": pytest.approx(pixels[:, 0].mean().item()),
        "kl": pytest.approx(pixels[:, 1].mean().item()),
    }


def test_unequal_batches_are_not_averaged_as_equals():
    batches = [(torch.full((n, 1, 1, 2), value), torch.zeros(n)) for n, value in ((9, 1.0), (1, 11.0))]
    assert mean_terms(Brightness(), batches) == {"total": 4.0, "recon": 2.0, "kl": 2.0}


def test_nothing_is_kept_for_gradients():
    seen = []

    class Watching(Brightness):
        def forward(self, x: Tensor, labels: Tensor | None = None) -> Terms:
            seen.append(torch.is_grad_enabled())
            return super().forward(x)

    mean_terms(Watching(), [(torch.zeros(2, 1, 1, 2), torch.zeros(2))])
    assert seen == [False]


def test_images_take_the_precision_of_the_model():
    seen = []

    class Watching(Brightness):
        def forward(self, x: Tensor, labels: Tensor | None = None) -> Terms:
            seen.append(x.dtype)
            return super().forward(x)

    for dtype in (torch.float32, torch.float64):
        mean_terms(Watching().to(dtype), [(torch.zeros(2, 1, 1, 2), torch.zeros(2))])
    assert seen == [torch.float32, torch.float64]
