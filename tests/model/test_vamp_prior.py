import copy

import pytest
import torch
from models import SHAPE, vamp

from vae.model.backbones import Dense
from vae.model.levels import Level
from vae.model.likelihoods import Bernoulli
from vae.model.posteriors import Diagonal, Full
from vae.model.priors import Vamp
from vae.model.vae import VAE


@pytest.mark.parametrize("posterior", [Diagonal, Full])
def test_a_vamp_prior_is_the_mean_of_the_posteriors_at_its_pseudo_inputs(posterior):
    prior = vamp(2, posterior, components=4)
    backbone, q = prior._encoder
    with torch.no_grad():
        q.mean.weight.mul_(5)
    z = torch.randn(7, 2)
    each = [q.q(backbone.encoder(image[None]), None).log_prob(z).exp() for image in prior.logits.sigmoid()]
    assert torch.allclose(prior().log_prob(z).exp(), torch.stack(each).mean(0), rtol=1e-4)
    assert (each[0] - each[1]).abs().max() > 1e-3


def test_a_vamp_prior_starts_at_training_images():
    images = torch.rand(5, *SHAPE)
    images[0] = images[0].round()  # black and white have no finite logits
    prior = vamp(2, init="images", components=7)
    prior.start_at(images, torch.zeros(len(images)).long(), 1e-3)
    assert prior.logits.isfinite().all()
    assert torch.allclose(prior.logits.sigmoid(), images[[0, 1, 2, 3, 4, 0, 1]], atol=0.01001)
    prior = vamp(2, init="images", components=2)
    prior.start_at(images, torch.zeros(len(images)).long(), 1e-3)
    assert torch.allclose(prior.logits.sigmoid(), images[:2], atol=0.01001)


def test_a_vamp_prior_may_start_at_random():
    prior = vamp(2, init="random")
    before = prior.logits.detach().clone()
    prior.start_at(torch.rand(5, *SHAPE), torch.zeros(5).long(), 1e-3)
    assert torch.equal(prior.logits, before)
    assert len(before.unique()) == before.numel() and not torch.equal(before, vamp(2).logits)


def test_the_pseudo_inputs_of_a_conditional_model_keep_their_classes():
    backbone, prior = Dense(SHAPE, 2, hidden=[16, 8], classes=3), Vamp(2, components=4, init="images")
    posterior = Diagonal(backbone.features, 2)
    vae = VAE(backbone, [Level(prior, posterior, 2)], Bernoulli())
    labels = torch.tensor([2, 0, 1, 1])
    vae.start_at(torch.rand(4, *SHAPE), labels)
    assert torch.equal(vae.state_dict()["levels.0.prior.labels"], labels)
    z = torch.randn(7, 2)
    each = [vae.encode(prior.logits.sigmoid()[i : i + 1], labels[i : i + 1]).log_prob(z).exp() for i in range(4)]
    assert torch.allclose(prior().log_prob(z).exp(), torch.stack(each).mean(0), rtol=1e-4)


def vamp_vae() -> VAE:
    backbone, prior = Dense(SHAPE, 2, hidden=[16, 8]), Vamp(2, components=3, init="images")
    posterior = Diagonal(backbone.features, 2)
    return VAE(backbone, [Level(prior, posterior, 2)], Bernoulli())


def test_the_encoder_of_a_vamp_prior_is_the_model_s_and_is_stored_once():
    vae = vamp_vae()
    prior_state = {name for name in vae.state_dict() if name.startswith("levels.0.prior.")}
    assert prior_state == {"levels.0.prior.logits"}
    weights = list(vae.parameters())
    assert len({id(weight) for weight in weights}) == len(weights) == len(vae.state_dict())
    z = torch.randn(7, 2)
    before = vae.prior().log_prob(z)
    with torch.no_grad():
        vae.posterior.mean.bias += 1
    assert not torch.allclose(vae.prior().log_prob(z), before, atol=0.01)
    assert vae.double().prior().sample().dtype == torch.float64


def test_a_copy_of_a_model_has_a_vamp_prior_of_its_own():
    vae, x = vamp_vae(), torch.rand(4, *SHAPE)
    vae.start_at(torch.rand(6, *SHAPE), torch.zeros(6).long())
    copied = copy.deepcopy(vae)
    assert copied.prior._encoder[0] is copied.backbone and copied.prior._encoder[1] is copied.posterior
    z = torch.randn(7, 2)
    before = vae.prior().log_prob(z)
    assert torch.equal(copied.prior().log_prob(z), before)
    optimizer = torch.optim.SGD(copied.parameters(), lr=0.1)
    copied(x).total.mean().backward()
    optimizer.step()
    assert torch.equal(vae.prior().log_prob(z), before)
    assert not torch.equal(copied.prior().log_prob(z), before)
    assert (copied.prior.logits != vae.prior.logits).any()  # pseudo-inputs are trained
