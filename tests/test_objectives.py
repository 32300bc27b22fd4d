import pytest
import torch

from vae.model import Terms
from vae.objectives import ELBO


def terms(recon: torch.Tensor, kl: torch.Tensor) -> Terms:
    return Terms(recon, kl, z=None, q=None, p=None, p_x=None)  # type: ignore[arg-type]


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0, 4.0])
def test_beta_scales_the_kl_alone_and_images_are_averaged_last(beta):
    recon, kl = torch.rand(2, 7, dtype=torch.float64, requires_grad=True).unbind()
    loss = ELBO(beta)(terms(recon, kl))
    assert loss.shape == ()
    assert loss.item() == pytest.approx(sum(r + beta * k for r, k in zip(recon.tolist(), kl.tolist(), strict=True)) / 7)
    by_recon, by_kl = torch.autograd.grad(loss, (recon, kl))
    assert torch.allclose(by_recon, torch.full((7,), 1 / 7).double())
    assert torch.allclose(by_kl, torch.full((7,), beta / 7).double())


def test_beta_one_is_the_total_and_the_total_knows_no_beta():
    batch = terms(torch.rand(7), torch.rand(7))
    assert torch.allclose(ELBO(1.0)(batch), batch.total.mean())
    assert torch.equal(batch.total, batch.recon + batch.kl)
