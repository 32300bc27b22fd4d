import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from models import awake
from torch import Tensor, nn

from vae.evaluation import codes as use
from vae.model import codebook
from vae.model.backbones import Backbone, Conv, Dense
from vae.model.codebook import Codebook, middles
from vae.model.codes import Coding, as_maps, counts, from_maps, usage
from vae.model.fsq import FSQ
from vae.model.gumbel import Gumbel
from vae.model.levels import Level
from vae.model.likelihoods import Bernoulli
from vae.model.noise import Draw
from vae.model.objectives import ELBO, Batch
from vae.model.resnet import Resnet
from vae.model.sequences import Autoregressive, SequenceOfCodes, Uniform, UniformCodes
from vae.model.vae import VAE, Terms

D, K, GRID = 3, 5, (2, 2)
IMAGES = (1, 8, 8)
VQ: dict[str, Any] = {"decay": 0.9, "commitment": 0.25, "gradient": "straight_through", "revive": 0.0, "places": None}
BACKBONES: dict[str, Callable[[], Backbone]] = {
    "dense": lambda: Dense(IMAGES, D, hidden=[16], coded=True, places=4),
    "conv": lambda: Conv(IMAGES, D, channels=[8, 8], hidden=6, coded=True),
    "resnet": lambda: awake(Resnet(IMAGES, D, [8, 8, 8], 1, None, [], coded=True)),
}
CODINGS: dict[str, Callable[..., Coding]] = {
    "codebook": lambda **given: Codebook(**given, codes=K, stages=1, **VQ),
    "gradient": lambda **given: Codebook(**given, codes=K, stages=1, **VQ | {"decay": None}),
    "rotation": lambda **given: Codebook(**given, codes=K, stages=1, **VQ | {"gradient": "rotation"}),
    "residual": lambda **given: Codebook(**given, codes=K, stages=3, **VQ),
    "fsq": lambda **given: FSQ(**given, levels=[3, 4, 2], places=None),
    "gumbel": lambda **given: Gumbel(**given, codes=K, temperature=0.7, places=None),
}
NO_PRIOR = UniformCodes(K, torch.Size([4, 1]))


def coding(name: str = "codebook") -> Coding:
    return CODINGS[name](features=7, latent_dim=D, grid=GRID, maps=None).double()


def model(name: str = "codebook", backbone: str = "conv", prior: str = "uniform", classes: int = 0) -> VAE:
    body = BACKBONES[backbone]() if not classes else Conv(IMAGES, D, [8, 8], hidden=6, classes=classes, coded=True)
    q = CODINGS[name](features=body.features, latent_dim=D, grid=body.grid, maps=body.maps)
    p = Uniform() if prior == "uniform" else Autoregressive(8, 1, 2)
    return VAE(body, body.levels(p, q, D), Bernoulli())


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("name", CODINGS)
def test_terms_of_a_model(name, backbone):
    vae = model(name, backbone)
    x = torch.rand(6, *IMAGES)
    terms = vae(x)
    q = vae.posterior
    assert isinstance(q, Coding) and terms.latent.codes is not None
    index = terms.latent.codes.chosen
    assert index.shape == (6, 4, q.stages) and terms.latent.z.shape == (6, vae.numbers) == (6, 4 * D)
    if q.is_certain:
        torch.testing.assert_close(terms.kl, torch.full((6,), 4 * q.stages * math.log(q.codes)))
        torch.testing.assert_close(vae.q(x).mean, terms.latent.z)
        assert vae.q(x).log_prob(terms.latent.z).eq(0).all()
    # z is made of the vectors of its codes, as maps.
    vectors = q.vectors(index)
    torch.testing.assert_close(terms.latent.z, vectors.transpose(1, 2).reshape(6, -1))
    torch.testing.assert_close(vae.decode(terms.latent.z).log_prob(x), -terms.recon)
    assert vae.sample(3).shape == (3, *IMAGES)


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("name", CODINGS)
def test_every_weight_learns(name, backbone):
    learned = name != "gumbel"
    vae = model(name, backbone, "autoregressive" if learned else "uniform")
    awake(vae.prior)
    objective = ELBO(1.0)
    _, terms = objective(vae, Batch(torch.rand(6, *IMAGES)), 0)
    players = objective.players(vae)
    assert [player.name for player in players] == (["model", "codes"] if learned else ["model"])
    weights = [weight for player in players for weight in player.weights]
    assert len(weights) == len({*weights}) and {*weights} == {*vae.parameters()}
    for player in players:
        value = player.loss(terms, Batch(torch.zeros(0)), 0).value
        found = torch.autograd.grad(value, weights, retain_graph=True, allow_unused=True)
        for weight, gradient in zip(weights, found, strict=True):
            own = any(weight is each for each in player.weights)
            assert (gradient is not None and bool(gradient.any())) == own


def test_the_nearest_vector_is_that_of_a_search():
    points, vectors = torch.randn(50, D), torch.randn(K, D)
    by_hand = [[sum((point - vector) ** 2).sqrt() for vector in vectors] for point in points]
    assert codebook.nearest(points, vectors).tolist() == [row.index(min(row)) for row in by_hand]


def test_stages_code_what_is_left():
    q = coding("residual")
    made = torch.randn(2, 4, D, dtype=torch.float64)
    choice = q.choose(made, Draw())
    for image, place in itertools.product(range(2), range(4)):
        left = made[image, place].clone()
        for stage in range(3):
            distances = (left - q.vectors_of[stage]).square().sum(-1)
            torch.testing.assert_close(choice.codes.sought[image, place, stage], left)
            assert choice.codes.chosen[image, place, stage] == distances.argmin()
            left -= q.vectors_of[stage, distances.argmin()]
        torch.testing.assert_close(choice.vectors[image, place], made[image, place] - left)


@pytest.mark.parametrize("decay", [0.9, None])
def test_the_penalty_by_hand(decay):
    q = coding("codebook" if decay else "gradient")
    made = torch.randn(2, 4, D, dtype=torch.float64, requires_grad=True)
    choice = q.choose(made, Draw())
    chosen = q.vectors_of[0][choice.codes.chosen[..., 0]]
    distance = (made - chosen).square().sum((1, 2))
    torch.testing.assert_close(choice.penalty, distance * (0.25 if decay else 1.25))
    (gradient,) = torch.autograd.grad(choice.penalty.sum(), made, retain_graph=True)
    torch.testing.assert_close(gradient, 0.25 * 2 * (made - chosen))  # commitment alone moves the features
    if decay is None:
        assert isinstance(q.vectors_of, Tensor)
        (gradient,) = torch.autograd.grad(choice.penalty.sum(), q.vectors_of)
        expected = torch.zeros_like(gradient)
        for k in range(K):
            mine = choice.codes.chosen[..., 0] == k
            expected[0, k] = 2 * (q.vectors_of[0, k] - made[mine]).sum(0)
        torch.testing.assert_close(gradient, expected)


def test_straight_through_gradients_are_those_of_the_vectors():
    made = torch.randn(2, 4, D, dtype=torch.float64, requires_grad=True)
    slopes = torch.randn(2, 4, D, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((coding().choose(made, Draw()).vectors * slopes).sum(), made)
    assert torch.equal(gradient, slopes)


def test_rotation_turns_and_scales_gradients_by_hand():
    q = coding("rotation")
    made = torch.randn(2, 4, D, dtype=torch.float64, requires_grad=True)
    slopes = torch.randn(2, 4, D, dtype=torch.float64)
    choice = q.choose(made, Draw())
    chosen = q.vectors_of[0][choice.codes.chosen[..., 0]]
    torch.testing.assert_close(choice.vectors, chosen)
    (gradient,) = torch.autograd.grad((choice.vectors * slopes).sum(), made)
    for image, place in itertools.product(range(2), range(4)):
        h, e = made[image, place].detach(), chosen[image, place]
        # The rotation in the plane of h and e by the angle between them, from its definition.
        u = h / h.norm()
        v = e - (e @ u) * u
        v = v / v.norm()
        angle = math.atan2(float(e @ v), float(e @ u))
        plane = torch.outer(u, u) + torch.outer(v, v)
        turn = torch.eye(D) - plane + math.cos(angle) * plane
        turn = turn + math.sin(angle) * (torch.outer(v, u) - torch.outer(u, v))
        torch.testing.assert_close(turn @ u, e / e.norm())
        torch.testing.assert_close(gradient[image, place], e.norm() / h.norm() * turn.T @ slopes[image, place])


def test_averages_follow_the_closed_recursion():
    q = coding()
    first, batches = q.vectors_of.clone()[0], [torch.randn(6, 4, D, dtype=torch.float64) for _ in range(7)]
    use, sums = torch.full((K,), 1 / K, dtype=torch.float64), first / K
    for made in batches:
        choice = q.choose(made, Draw())
        index = choice.codes.chosen.flatten()
        share = torch.stack([(index == k).double().mean() for k in range(K)])
        total = torch.stack([made.flatten(0, 1)[index == k].sum(0) for k in range(K)]) / len(index)
        use, sums = 0.9 * use + 0.1 * share, 0.9 * sums + 0.1 * total
        q.observe(observed(choice))
    torch.testing.assert_close(q.use[0], use)
    torch.testing.assert_close(q.vectors_of[0], sums / use[:, None])


def observed(choice) -> Terms:
    from vae.model.levels import Latent

    latent = Latent(choice.vectors.flatten(1), torch.zeros(len(choice.vectors)), None, NO_PRIOR, codes=choice.codes)
    return Terms(torch.zeros(len(choice.vectors)), (latent,), NO_PRIOR)


def test_a_forward_pass_changes_nothing():
    vae = model("residual")
    before = {name: value.clone() for name, value in vae.state_dict().items()}
    vae(torch.rand(6, *IMAGES))
    assert all(torch.equal(value, before[name]) for name, value in vae.state_dict().items())


@pytest.mark.parametrize("decay", [0.99, None])
def test_revival_brings_use_from_a_tenth_to_nine_tenths(decay):
    torch.manual_seed(1)
    many = 40
    q = Codebook(7, D, GRID, None, codes=many, stages=1, **VQ | {"decay": decay, "revive": 0.1})
    with torch.no_grad():  # all but four vectors lie where no feature will ever be
        q.vectors_of[0, 4:] += 100
        q.sums.copy_(q.vectors_of * q.use.unsqueeze(-1))
    made = torch.randn(64, 4, D)
    assert usage(counts(q.choose(made, Draw()).codes.chosen, many))["codes_used"] <= 0.1
    for _ in range(600):
        made = torch.randn(64, 4, D)
        q.observe(observed(q.choose(made, Draw())))
    assert usage(counts(q.choose(torch.randn(640, 4, D), Draw()).codes.chosen, many))["codes_used"] >= 0.9


def test_a_mixture_of_clusters_is_coded_by_as_many_codes():
    centres = 10 * torch.randn(K, D)
    points = (centres[torch.arange(500) % K] + 0.1 * torch.randn(500, D)).view(-1, 4, D)
    found = middles(points.flatten(0, 1), K)
    distances = (found[:, None] - centres).norm(dim=-1)
    assert sorted(distances.argmin(1).tolist()) == list(range(K)) and distances.min(1).values.max() < 0.1
    q = Codebook(7, D, GRID, None, codes=K, stages=1, **VQ)
    q.vectors_of[0].copy_(found)
    (share,) = counts(q.choose(points, Draw()).codes.chosen, K) / 500
    torch.testing.assert_close(share, torch.full((K,), 1 / K))


def test_training_begins_with_vectors_among_the_features():
    vae = model()
    images = torch.rand(200, *IMAGES)
    vae.start_at(images, torch.zeros(200, dtype=torch.long))
    found = use.count(vae, [(images, torch.zeros(200, dtype=torch.long))])
    assert (found > 0).all()


def test_fsq_indices_are_a_bijection():
    q = coding("fsq")
    assert q.codes == 24
    index = torch.arange(24).view(6, 4, 1)
    vectors = q.vectors(index)
    assert len(vectors.flatten(0, 1).unique(dim=0)) == 24 and vectors.abs().max() <= 1
    assert torch.equal(q.nearest(vectors), index)
    # Every level of every number is reached, by the values of each that are far apart.
    grid = torch.cartesian_prod(*[torch.linspace(-4, 4, 81, dtype=torch.float64)] * D).view(-1, 1, D)
    choice = q.choose(grid, Draw())
    assert len(choice.codes.chosen.unique()) == 24
    torch.testing.assert_close(choice.vectors, q.vectors(choice.codes.chosen))


def test_fsq_gradients_pass_the_rounding():
    q = coding("fsq")
    made = torch.randn(2, 4, D, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(q.choose(made, Draw()).vectors.sum(), made)
    torch.testing.assert_close(gradient, 1.05 * (1 - torch.tanh(made.detach()).square()))


def test_gumbel_draws_have_the_probabilities_and_an_exact_kl():
    q = coding("gumbel")
    logits = torch.randn(1, 4, K, dtype=torch.float64)
    many = logits.expand(40_000, 4, K)
    index = q.choose(many, Draw()).codes.chosen[..., 0]
    p = logits[0].softmax(-1)
    for place in range(4):
        found = torch.bincount(index[:, place], minlength=K) / len(index)
        assert ((found - p[place]).abs() < 6 * (p[place] * (1 - p[place]) / len(index)).sqrt()).all()
    choice = q.choose(logits, Draw())
    expected = (p * (p * K).log()).sum()
    torch.testing.assert_close(q.kl(logits, choice.codes, UniformCodes(K, torch.Size([4, 1]))), expected.view(1))


def test_gumbel_gradients_are_those_of_the_softmax():
    q = coding("gumbel")
    logits = torch.randn(2, 4, K, dtype=torch.float64, requires_grad=True)
    torch.manual_seed(3)
    (gradient,) = torch.autograd.grad(q.choose(logits, Draw()).vectors.square().sum() * 0.5, logits)
    torch.manual_seed(3)
    uniform = torch.empty(2, 4, K, dtype=torch.float64).uniform_()
    noisy = logits.detach() - (-uniform.log()).log()
    soft = (noisy / 0.7).softmax(-1)
    slope = q.vectors_of[noisy.argmax(-1)].detach() @ q.vectors_of.detach().T  # of the loss in the weights
    expected = soft * (slope - (soft * slope).sum(-1, keepdim=True)) / 0.7
    torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize("stages", [1, 2])
@pytest.mark.parametrize("classes", [0, 2])
def test_probabilities_of_all_maps_add_up_to_one(stages, classes):
    q = Codebook(7, D, (2, 2) if stages == 1 else (1, 2), None, codes=3, stages=stages, **VQ)
    prior = awake(prior_of(q, classes)).double()
    state = torch.eye(2, dtype=torch.float64)[1] if classes else None
    every = torch.cartesian_prod(*[torch.arange(3)] * 4).view(-1, 4 // stages, stages)
    p = prior(state)
    assert p.log_prob(every).shape == (81,)
    torch.testing.assert_close(p.log_prob(every).exp().sum(), torch.tensor(1.0, dtype=torch.float64))
    assert p.log_prob(every).std() > 0.01
    uniform = UniformCodes(3, torch.Size([4 // stages, stages]))
    torch.testing.assert_close(uniform.log_prob(every).exp().sum(), torch.tensor(1.0))


def prior_of(q: Coding, classes: int = 0) -> Autoregressive:
    body = Dense(IMAGES, D, hidden=[7], coded=True, places=q.places, classes=classes)
    body.grid = q.grid
    prior = Autoregressive(8, 2, 2)
    VAE(body, [Level(prior, q, D * q.places)], Bernoulli())
    return prior


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_draws_have_the_probabilities(temperature):
    q = Codebook(7, D, (1, 2), None, codes=3, stages=1, **VQ)
    prior = awake(prior_of(q)).double()
    p = prior().at(temperature)
    every = torch.cartesian_prod(torch.arange(3), torch.arange(3)).view(-1, 2, 1)
    expected = p.log_prob(every).exp()
    drawn = p.sample(torch.Size([20_000])).flatten(1)
    found = torch.bincount(3 * drawn[:, 0] + drawn[:, 1], minlength=9) / 20_000
    assert ((found - expected).abs() < 6 * (expected * (1 - expected) / 20_000).sqrt()).all()


def test_each_code_depends_on_those_before_it_alone():
    q = coding("residual")
    prior = awake(prior_of(q))
    codes = torch.randint(K, (1, prior.length))
    start = prior.starts(None, [1])
    before = prior.after(codes, start)
    for place in range(prior.length):
        other = codes.clone()
        other[0, place] = (other[0, place] + 1) % K
        moved = (prior.after(other, start) - before).abs().amax((0, 2)) > 0
        assert not moved[: place + 1].any()
        assert moved[place + 1 :].all()


def test_a_learned_prior_begins_as_the_uniform_one():
    vae = model(prior="autoregressive")
    torch.testing.assert_close(vae(torch.rand(3, *IMAGES)).kl, torch.full((3,), 4 * math.log(K)))


def test_at_temperature_zero_the_likeliest_code_is_drawn_at_every_place():
    prior = awake(prior_of(coding()))
    p = prior().at(0)
    assert isinstance(p, SequenceOfCodes)
    drawn = p.sample(torch.Size([3])).flatten(1)
    logits = prior.after(drawn, prior.starts(None, [3]))
    assert torch.equal(logits.argmax(-1), drawn)


def test_samples_of_a_conditional_model_are_of_their_classes():
    vae = model(prior="autoregressive", classes=2)
    awake(vae.prior)
    with torch.no_grad():
        vae.prior.begin.weight.mul_(30)
    x, labels = torch.rand(6, *IMAGES), torch.arange(6) % 2
    assert vae(x, labels).kl.shape == (6,)
    z = vae.p(labels).sample(torch.Size([6]))
    assert z.shape == (6, vae.numbers)
    assert vae.sample(4, 1).shape == (4, *IMAGES)
    with pytest.raises(ValueError, match="labels"):
        vae.sample(4)


def test_maps_and_back():
    for stages in (1, 3):
        index = torch.randint(K, (2, 6, stages))
        maps = as_maps(index, (2, 3))
        assert maps.shape == ((2, 2, 3) if stages == 1 else (2, 2, 3, 3))
        assert torch.equal(from_maps(maps, stages), index)


def test_use_of_codes():
    index = torch.tensor([[[0], [1], [1], [1]]])
    found = usage(counts(index, 4))
    entropy = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    torch.testing.assert_close(found["perplexity"], torch.tensor(math.exp(entropy)))
    assert found["codes_used"] == 0.5


def test_codes_stay_in_single_precision_under_mixed_precision():
    vae = model()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = vae(torch.rand(4, *IMAGES))
    assert terms.latent.z.dtype == torch.float32 and terms.latent.penalty.dtype == torch.float32
    assert isinstance(vae.posterior.read, nn.Conv2d)
