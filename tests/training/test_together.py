"""A step of several models at once, beside the same steps one by one."""

import copy

import pytest
import torch
from models import SHAPE, linear_gaussian
from torch import nn
from torch.optim import SGD

from vae.model.annealing import Count
from vae.model.backbones import Conv
from vae.model.noise import Fresh
from vae.model.objectives import ELBO, Batch
from vae.model.vae import VAE
from vae.training.step import Descent, eager, without_update
from vae.training.together import Beside, Member, Stack, Together, bytes_of

BETAS = (0.5, 1.0, 4.0)


def members(*objectives: ELBO) -> list[Member]:
    """Models with weights of their own, each with plain gradient descent."""
    found = []
    for seed, objective in enumerate(objectives):
        torch.manual_seed(seed)
        model, _, _ = linear_gaussian("correlated", "diagonal")
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(0.1 * torch.randn_like(weight))
        weights = [weight for weight in model.parameters() if weight.requires_grad]
        found.append(Member(model, objective, Descent(SGD(weights, 0.01 * (1 + seed)))))
    return found


def seeded(count: int) -> list[Fresh]:
    return [Fresh(torch.Generator().manual_seed(seed)) for seed in range(count)]


@pytest.mark.parametrize("step", [0, torch.tensor([0, 3, 9])])
@pytest.mark.parametrize("kind", ["constant", "linear"])
def test_each_descends_its_own_loss_by_its_own_noise(kind: str, step: Count) -> None:
    objectives = [ELBO(beta, kind, warmup=float(kind == "linear")) for beta in BETAS]
    for each in objectives:
        each.prepare(10, 2)
    some = members(*objectives)
    others = copy.deepcopy(some)
    images = torch.rand(3, 5, *SHAPE, dtype=torch.float64)
    together = Together(Stack([member.vae for member in some]), some)
    noise, same = seeded(3), seeded(3)
    counts = [step] * 3 if isinstance(step, int) else step.tolist()
    for _ in range(2):
        means = together(Batch(images, torch.zeros(3, 5, dtype=torch.long), Beside(noise)), step)
        for i, (vae, objective, update) in enumerate(others):
            assert update is not None
            expected = eager(vae, objective, {"model": update})(Batch(images[i], noise=same[i]), counts[i])
            assert means.names == expected.names
            assert torch.allclose(means.values[i], expected.values, rtol=1e-12)
    for one, other in zip(some, others, strict=True):
        for mine, theirs in zip(one.vae.parameters(), other.vae.parameters(), strict=True):
            assert torch.allclose(mine, theirs, rtol=1e-12)


def test_validation_changes_nothing() -> None:
    some = [member._replace(update=None) for member in members(*map(ELBO, BETAS))]
    before = [copy.deepcopy(member.vae.state_dict()) for member in some]
    images = torch.rand(3, 4, *SHAPE, dtype=torch.float64)
    with torch.no_grad():
        means = Together(Stack([member.vae for member in some]), some)(
            Batch(images, torch.zeros(3, 4, dtype=torch.long), Beside(seeded(3))), 0
        )
        for i, (vae, objective, _) in enumerate(some):
            alone = without_update(vae, objective)(Batch(images[i], noise=seeded(3)[i]), 0)
            assert torch.allclose(means.values[i], alone.values, rtol=1e-12)
    assert not means.values.requires_grad
    for member, state in zip(some, before, strict=True):
        assert all(torch.equal(value, state[name]) for name, value in member.vae.state_dict().items())


def test_models_keep_how_their_weights_lie_in_memory_and_share_it() -> None:
    models = [nn.ModuleList([Conv((1, 8, 8), 2, [4, 8], 16)]) for _ in range(2)]
    weights = [[weight.clone() for weight in model.parameters()] for model in models]
    strides = [weight.stride() for weight in models[0].parameters()]
    stack = Stack(models)
    for model, before in zip(models, weights, strict=True):
        assert all(torch.equal(*pair) for pair in zip(model.parameters(), before, strict=True))
        assert [weight.stride() for weight in model.parameters()] == strides
    with torch.no_grad():
        next(models[1].parameters()).fill_(3.0)
    first = next(iter(stack.weights.values()))
    assert (first[1] == 3).all() and not (first[0] == 3).any()


def test_the_memory_of_a_run_grows_with_its_batch() -> None:
    (member,) = members(ELBO(1.0))
    assert isinstance(member.vae, VAE)
    random = torch.get_rng_state()
    few, many = (bytes_of(member, Batch(torch.rand(n, *SHAPE, dtype=torch.float64))) for n in (5, 50))
    torch.set_rng_state(random)
    weights = sum(weight.nbytes for weight in member.vae.parameters())
    assert many - 6 * weights == pytest.approx(10 * (few - 6 * weights), rel=0.2)
