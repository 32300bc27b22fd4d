"""A model in use is checked against its own distributions, asked one image at a time."""

from typing import Any

import numpy as np
import pytest
import torch
from exported import CODEBOOK, SEQUENCE
from PIL import Image

import vae
from vae.model.build import build_model
from vae.model.distributions import DiagonalNormal, FullNormal
from vae.model.noise import Draw
from vae.use import trained

CLASSES = ["ant", "bee", "cat"]
CONFIG = {
    "latent_dim": 3,
    "backbone": {"_target_": "vae.model.backbones.Dense", "latent_dim": 3, "hidden": [8, 4]},
    "posterior": {"_target_": "vae.model.posteriors.Diagonal", "latent_dim": 3},
    "likelihood": {"_target_": "vae.model.likelihoods.Bernoulli"},
}
PRIORS = {
    "isotropic": {"_target_": "vae.model.priors.Isotropic", "latent_dim": 3},
    "correlated": {"_target_": "vae.model.priors.Correlated", "latent_dim": 3},
    "vamp": {"_target_": "vae.model.priors.Vamp", "latent_dim": 3, "components": 4, "init": "random"},
    "flow": {"_target_": "vae.model.priors.Flow", "latent_dim": 3, "kind": "maf", "layers": 1, "hidden": [4]},
}


def a_model(conditional=False, shape=(1, 5, 7), prior="isotropic", **changed):
    config = CONFIG | {"conditional": conditional, "prior": PRIORS[prior]} | changed
    about = {"config": config, "shape": list(shape), "data": "insects", "classes": CLASSES}
    return vae.Trained(build_model(config, shape, len(CLASSES)), about)


IMAGES = torch.rand(6, 1, 5, 7, generator=torch.Generator().manual_seed(0))


def test_it_says_what_it_is():
    assert repr(a_model(conditional=True)) == "Trained(insects, images of 1×5×7, latent_dim 3, conditional)"
    model = a_model()
    assert (model.shape, model.classes, model.data) == ((1, 5, 7), tuple(CLASSES), "insects")
    assert model.config["prior"]["_target_"] == "vae.model.priors.Isotropic" and not model.conditional


@pytest.mark.parametrize(("posterior", "kind"), [("Diagonal", DiagonalNormal), ("Full", FullNormal)])
def test_encoding_in_parts_is_encoding_at_once(monkeypatch, posterior, kind):
    model = a_model(posterior={"_target_": f"vae.model.posteriors.{posterior}", "latent_dim": 3})
    monkeypatch.setattr(trained, "AT_ONCE", 2 * 35)  # two images
    q, expected = model.encode(IMAGES), model.vae.encode(IMAGES)
    assert isinstance(q, kind) and q.batch_shape == (6,) and not q.mean.requires_grad
    assert torch.allclose(q.mean, expected.mean) and torch.allclose(q.stddev, expected.stddev)


@pytest.mark.parametrize("prior", PRIORS)
def test_decoding_and_reconstructing(monkeypatch, prior):
    model = a_model(prior=prior)
    monkeypatch.setattr(trained, "AT_ONCE", 2 * 35)
    z = torch.randn(2, 3, 3)
    expected = torch.stack([model.vae.decode(each).mean for each in z])
    assert torch.allclose(model.decode(z), expected) and torch.allclose(model.decode(z.double().numpy()), expected)
    assert torch.allclose(model.decode(z[0, 0]), expected[0, 0])
    assert torch.allclose(model.reconstruct(IMAGES), model.vae.decode(model.vae.encode(IMAGES).mean).mean)


def test_nothing_is_done_twice_where_a_picture_is_given():
    model = a_model(shape=(3, 5, 7))
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    expected = model.reconstruct(torch.tensor(pixels).permute(2, 0, 1) / 255)
    assert torch.equal(model.reconstruct(Image.fromarray(pixels)), expected) and expected.shape == (1, 3, 5, 7)


@pytest.mark.parametrize("prior", PRIORS)
def test_samples_depend_on_the_seed_alone(monkeypatch, prior):
    model = a_model(prior=prior)
    monkeypatch.setattr(trained, "BLOCK", 7)
    state = torch.get_rng_state()
    many = model.sample(20, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert many.shape == (20, 1, 5, 7) and many.min() >= 0 and many.max() <= 1
    torch.rand(5)
    assert torch.equal(model.sample(20, seed=3), many)
    assert torch.allclose(model.sample(10, seed=3), many[:10], atol=1e-6)  # other batches, other rounding
    assert len(many.flatten(1).unique(dim=0)) == 20
    assert not torch.isclose(model.sample(20, seed=4), many).all((1, 2, 3)).any()


def test_samples_are_of_the_prior():
    """The decoder is linear here, so that the mean image is that of the prior's mean."""
    model = a_model(prior="correlated")
    weight = torch.zeros(35, 3)
    weight[:3] = torch.eye(3)
    model.vae.decode = lambda z, labels=None: DiagonalNormal(
        (z @ weight.T).unflatten(1, model.shape), torch.ones(1, 5, 7)
    )
    z = model.sample(20_000).flatten(1)[:, :3]
    expected = model.vae.prior().covariance_matrix
    assert torch.allclose(z.T.cov(), expected, atol=0.05) and z.mean(0).abs().max() < 0.05


@pytest.mark.parametrize("labels", ["bee", 1, np.int64(1), torch.tensor(1), ["bee"] * 6, [1] * 6, torch.ones(6).long()])
def test_labels_are_names_or_positions_one_or_many(labels):
    model = a_model(conditional=True)
    ones = torch.ones(6, dtype=torch.int64)
    assert torch.equal(model.encode(IMAGES, labels).mean, model.vae.encode(IMAGES, ones).mean)
    assert torch.equal(model.sample(6, labels=labels), model.sample(6, labels=ones))
    assert torch.equal(vae.score(model, IMAGES, labels), vae.score(model, IMAGES, ones))


def test_each_image_has_its_own_label(monkeypatch):
    model = a_model(conditional=True)
    monkeypatch.setattr(trained, "AT_ONCE", 2 * 35)
    monkeypatch.setattr(trained, "BLOCK", 4)
    labels = ["ant", "bee", "cat", "cat", "bee", "ant"]
    together = model.reconstruct(IMAGES, labels)
    alone = [model.reconstruct(image, label)[0] for image, label in zip(IMAGES, labels, strict=True)]
    assert torch.allclose(together, torch.stack(alone))
    drawn = torch.stack([model.sample(6, labels=label)[i] for i, label in enumerate(labels)])
    assert torch.allclose(model.sample(6, labels=labels), drawn)


ALLOWED = r"classes \(ant, bee, cat\) or their positions from 0 to 2$"


@pytest.mark.parametrize(
    ("conditional", "use", "message"),
    [
        (True, lambda m: m.encode(IMAGES), f"^labels: must be given, because this model is conditional: {ALLOWED}"),
        (True, lambda m: m.sample(3), "^labels: must be given"),
        (True, lambda m: vae.score(m, IMAGES), "^labels: must be given"),
        (True, lambda m: m.sample(3, labels="dog"), f"^labels=dog: must be {ALLOWED}"),
        (True, lambda m: m.sample(3, labels=3), f"^labels=3: must be {ALLOWED}"),
        (True, lambda m: m.sample(3, labels=[0, -1, 0]), f"^labels=-1: must be {ALLOWED}"),
        (True, lambda m: m.sample(3, labels=1.0), f"^labels=1.0: must be {ALLOWED}"),
        (True, lambda m: m.sample(3, labels=[0, 1]), r"^labels of shape \(2,\): must be one, or of shape \(3,\)$"),
        (False, lambda m: m.sample(3, labels=1), "^labels: must be left out, because this model is not conditional$"),
        (False, lambda m: m.sample(0), "^n=0: must be a positive integer$"),
        (False, lambda m: m.encode(IMAGES[:, :, 1:]), r"^images of shape \(6, 1, 4, 7\): must be"),
        (False, lambda m: m.encode(IMAGES - 1), "^images from -"),
        (False, lambda m: m.decode(torch.zeros(4, 2)), r"^z of shape \(4, 2\): must be finite .* \(…, 3\)$"),
        (False, lambda m: m.decode([0, 0, float("nan")]), "^z with NaN or infinity: must be finite"),
        (False, lambda m: vae.interpolate(m, IMAGES, IMAGES[0]), "^a: must be a single image, not 6$"),
        (False, lambda m: vae.interpolate(m, IMAGES[0], IMAGES[0, :, 1:]), r"^b of shape \(1, 4, 7\): must be"),
        (False, lambda m: vae.interpolate(m, IMAGES[0], IMAGES[1], steps=1), "^steps=1: must be at least 2$"),
        (False, lambda m: vae.traverse(m, IMAGES[0], dim=3), "^dim=3: must be from 0 to 2$"),
        (False, lambda m: vae.score(m, IMAGES, kind="elbo"), "^kind=elbo: must be one of total, nll, recon$"),
        (False, lambda m: vae.score(m, IMAGES, samples=0), "^samples=0: must be a positive integer$"),
    ],
)
def test_what_cannot_be_done_is_refused(conditional, use, message):
    with pytest.raises(ValueError, match=message):
        use(a_model(conditional))


def test_an_interpolation_goes_from_one_reconstruction_to_the_other():
    model = a_model()
    found = vae.interpolate(model, IMAGES[0], IMAGES[1], steps=5)
    middle = model.decode(model.encode(IMAGES[:2]).mean.mean(0))
    assert torch.allclose(found[[0, -1]], model.reconstruct(IMAGES[:2])) and torch.allclose(found[2], middle)


def test_a_traversal_moves_one_dimension_by_the_priors_standard_deviations():
    model = a_model(prior="correlated")
    found = vae.traverse(model, IMAGES[0], dim=2, steps=3)
    step = torch.tensor([0, 0, 3 * 0.5**0.5])
    code = model.encode(IMAGES[0]).mean[0]
    assert torch.allclose(found, model.decode(torch.stack([code - step, code, code + step])), atol=1e-6)


def test_a_conditional_model_goes_between_images_of_a_class():
    model = a_model(conditional=True)
    found = vae.interpolate(model, IMAGES[0], IMAGES[1], steps=2, label="cat")
    assert torch.allclose(found, model.reconstruct(IMAGES[:2], "cat"), atol=1e-6)
    assert torch.allclose(vae.traverse(model, IMAGES[0], 1, 3, "cat")[1], found[0], atol=1e-6)


@pytest.mark.parametrize("conditional", [False, True])
def test_scores_are_the_negative_elbo_of_each_image(conditional):
    model, labels = a_model(conditional), torch.arange(6) % 3
    state = torch.get_rng_state()
    total = vae.score(model, IMAGES, labels if conditional else None, samples=2000)
    assert torch.equal(torch.get_rng_state(), state) and total.shape == (6,)
    with torch.no_grad():
        terms = model.vae(IMAGES, labels, draw=Draw(samples=2000))
    expected = terms.total.mean(0)  # with the exact KL, while the score draws that, too
    error = (terms.recon + terms.latent.q.log_prob(terms.latent.z) - terms.latent.p.log_prob(terms.latent.z)).std(
        0
    ) / 2000**0.5
    assert ((expected - total).abs() < 6 * error).all() and error.max() < 0.02


def test_scores_by_likelihood_are_below_those_by_the_bound_and_repeat_themselves():
    model = a_model()
    total, nll = (vae.score(model, IMAGES, kind=kind, samples=50) for kind in ("total", "nll"))
    assert (nll < total).all()
    assert torch.equal(vae.score(model, IMAGES, samples=50), total)
    assert not torch.equal(vae.score(model, IMAGES, samples=50, seed=1), total)


def test_an_autoencoder_has_no_other_score_than_its_error():
    model = a_model(objective={"_target_": "vae.model.objectives.Autoencoder"})
    with pytest.raises(ValueError, match=r"^kind=nll: must be recon, because an autoencoder has no posterior$"):
        vae.score(model, IMAGES, kind="nll")
    expected = -model.vae.decode(model.vae.encode(IMAGES).mean).log_prob(IMAGES)
    assert torch.allclose(vae.score(model, IMAGES, kind="recon"), expected.double(), rtol=1e-5)
    assert torch.equal(
        vae.score(model, IMAGES, kind="recon", samples=3, seed=1), vae.score(model, IMAGES, kind="recon")
    )


def test_a_walk_moves_the_other_dimensions_as_a_correlated_prior_does():
    model = a_model(prior="correlated")
    walks = [vae.traverse(model, IMAGES[0], 1, 3, walk=walk) for walk in ("axis", "conditional")]
    assert torch.allclose(walks[0][1], walks[1][1], atol=1e-6) and not torch.allclose(walks[0][2], walks[1][2])
    code = model.encode(IMAGES[:1]).mean[0]
    covariance = model.vae.prior().covariance_matrix
    there = code + 3 * covariance[1] / covariance[1, 1].sqrt()
    assert torch.allclose(walks[1][2], model.decode(there), atol=1e-5)


def test_a_model_in_training_mode_is_used_as_trained():
    model = a_model(likelihood={"_target_": "vae.model.likelihoods.Gaussian", "sigma": "optimal"})
    before = vae.score(model, IMAGES)
    model.vae.train()
    assert torch.equal(vae.score(model, IMAGES), before) and model.vae.training
    assert model.vae.likelihood.batches == 0


@pytest.mark.parametrize("conditional", [False, True])
def test_a_model_of_several_levels_is_used_by_all_its_numbers(conditional):
    below = {"_target_": "vae.model.backbones.Dense", "latent_dim": 3, "hidden": [8, 4], "below": [4, 2]}
    model = a_model(conditional, backbone=below)
    told: dict[str, Any] = {"labels": "bee"} if conditional else {}
    for weight in model.vae.parameters():
        weight.data += 0.3 * torch.randn_like(weight)
    assert repr(model).endswith("latent_dim 3, 3 levels, conditional)" if conditional else "latent_dim 3, 3 levels)")
    q = model.encode(IMAGES, **told)
    assert q.mean.numpy().shape == q.stddev.numpy().shape == (6, 9)
    assert torch.allclose(model.reconstruct(IMAGES, **told), model.decode(q.mean, **told))
    assert model.decode(q.mean[:, :7], **told).shape == (6, 1, 5, 7)
    with pytest.raises(ValueError, match=r"must be finite numbers of shape \(…, 3\) or \(…, 7\) or \(…, 9\)$"):
        model.decode(q.mean[:, :4], **told)
    at_means = model.sample(2, temperature=0, **told)
    assert torch.allclose(at_means[0], at_means[1]) and not torch.allclose(*model.sample(2, **told))
    assert torch.allclose(at_means, model.decode(torch.zeros(2, 3), **told))  # the mean of N(0, I), and so on down
    one: dict[str, Any] = {"label": "bee"} if conditional else {}
    assert vae.traverse(model, IMAGES[0], dim=2, **one).shape == (8, 1, 5, 7)
    ends = vae.interpolate(model, IMAGES[0], IMAGES[1], **one)
    assert torch.allclose(ends[[0, -1]], model.reconstruct(IMAGES[:2], **told), atol=1e-6)
    assert vae.score(model, IMAGES, kind="nll", **told).isfinite().all()


@pytest.mark.parametrize("prior", ["isotropic", "flow"])
def test_a_temperature_scales_the_noise_of_any_prior(prior):
    model = a_model(prior=prior)
    with pytest.raises(ValueError, match=r"^temperature=-1: must be a number from 0 on$"):
        model.sample(1, temperature=-1)
    spreads = [model.sample(400, temperature=scale).var(0).mean() for scale in (0, 0.3, 1)]
    assert spreads[0] < 1e-12 < spreads[1] < spreads[2]


MAPS = {"_target_": "vae.model.backbones.Conv", "latent_dim": 3, "channels": [4, 4], "hidden": 5}


def a_model_of_codes(stages=1, **changed):
    made = {"backbone": MAPS, "posterior": CODEBOOK | {"stages": stages}, "prior": SEQUENCE}
    model = vae.Trained(build_model(CONFIG | {"conditional": False} | made | changed, (1, 5, 7), 3), ABOUT | changed)
    with torch.no_grad():
        for weight in model.vae.parameters():
            weight.add_(0.3 * torch.randn_like(weight))
    return model


ABOUT = {"config": CONFIG | {"conditional": False}, "shape": [1, 5, 7], "data": "insects", "classes": CLASSES}


@pytest.mark.parametrize("stages", [1, 2])
def test_codes_are_integers_that_are_decoded_like_their_vectors(stages):
    model = a_model_of_codes(stages)
    q = model.encode(IMAGES)
    last = () if stages == 1 else (stages,)
    assert q.codes.shape == (6, 2, 2, *last) and q.codes.dtype == torch.int64 and q.mean.shape == (6, 12)
    assert torch.equal(model.decode(q.codes), model.decode(q.mean))
    assert torch.equal(model.decode(q.codes.numpy()[0]), model.decode(q.mean[0]))
    assert torch.equal(model.reconstruct(IMAGES), model.decode(q.mean))
    assert f"2×2 codes of 6{' in 2 stages' if stages > 1 else ''}" in repr(model)


def test_codes_that_there_are_none_of_are_refused():
    model = a_model_of_codes()
    with pytest.raises(ValueError, match=r"^codes of shape \(2, 3\): must be integers of shape \(…, 2, 2\)$"):
        model.decode(torch.zeros(2, 3, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"^codes with 6: must be from 0 to 5$"):
        model.decode(torch.full((2, 2), 6))
    with pytest.raises(ValueError, match=r"^traverse: "):
        vae.traverse(model, IMAGES[0])


def test_samples_of_codes_are_of_the_prior_and_cooled_by_a_temperature():
    model = a_model_of_codes()
    assert torch.allclose(model.sample(5, seed=1), model.sample(9, seed=1)[:5])
    assert not torch.allclose(model.sample(5, seed=1), model.sample(5, seed=2))
    cold = model.sample(4, temperature=0)
    assert torch.allclose(cold[0], cold[3])
    assert model.sample(40, temperature=0.3).var(0).sum() < model.sample(40, temperature=3).var(0).sum()


def test_a_score_of_codes_is_their_total():
    model = a_model_of_codes()
    with torch.no_grad():
        total = model.vae(IMAGES).total.double()
    for kind in ("total", "nll"):
        assert torch.allclose(vae.score(model, IMAGES, kind=kind), total)


def test_steps_between_two_images_are_codes():
    model = a_model_of_codes()
    between = vae.interpolate(model, IMAGES[0], IMAGES[1], 5)
    assert torch.allclose(between[0], model.reconstruct(IMAGES[:1])[0])
    assert torch.allclose(between[4], model.reconstruct(IMAGES[1:2])[0])
    vectors = {tuple(each) for each in model.vae.posterior.vectors_of[0].tolist()}
    z = model.coding.snapped(torch.randn(3, 12))
    assert all(tuple(each) in vectors for each in model.coding.places_of(z).flatten(0, 1).tolist())
