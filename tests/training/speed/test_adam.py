import io

import pytest
import torch
from torch import nn
from torch.optim import Adam, AdamW

from vae.training.speed.adam import StraightAdam

OPTIMIZERS = {
    "adam": lambda weights: Adam(weights, lr=0.1, fused=True),
    "decay": lambda weights: Adam(weights, lr=0.1, betas=(0.8, 0.9), weight_decay=0.1, fused=True),
    "adamw": lambda weights: AdamW(weights, lr=0.1, eps=1e-3, weight_decay=0.1, fused=True),
    "decoupled": lambda weights: Adam(weights, lr=0.1, weight_decay=0.1, decoupled_weight_decay=True, fused=True),
    "maximize": lambda weights: Adam(weights, lr=0.1, maximize=True, fused=True),
}


class Taught:
    """A network with an optimiser, of which torch takes the steps or a StraightAdam."""

    def __init__(self, name: str, straight: bool):
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(5, 7), nn.Linear(7, 3))  # sizes that fill no vector register
        self.optimizer = OPTIMIZERS[name](self.model.parameters())
        self.by_torch = 0
        self.optimizer.register_step_post_hook(self._count)
        self.step = StraightAdam(self.optimizer).step if straight else self.optimizer.step

    def _count(self, *_: object) -> None:
        self.by_torch += 1

    def steps(self, count: int, without: tuple[int, ...] = ()) -> "Taught":
        """Steps at a falling rate; in those of `without` the first layer has no gradients."""
        for index in range(count):
            self.optimizer.param_groups[0]["lr"] *= 0.9
            for weight in self.model.parameters():
                weight.grad = None
            result = self.model[1](torch.rand(4, 7)) if index in without else self.model(torch.rand(4, 5))
            result.square().sum().backward()
            self.step()
        return self

    def tensors(self) -> list[torch.Tensor]:
        """Everything that training changes."""
        states = self.optimizer.state_dict()["state"].values()
        return [*self.model.parameters(), *(value for state in states for value in state.values())]


def same(one: Taught, other: Taught) -> bool:
    return all(torch.equal(*pair) for pair in zip(one.tensors(), other.tensors(), strict=True))


@pytest.mark.parametrize(("without", "by_torch"), [((), 1), ((0,), 2), ((3, 5), 3)])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_are_torch_s_to_the_last_bit(name, without, by_torch):
    ours, own = (Taught(name, straight).steps(8, without) for straight in (True, False))
    assert same(ours, own) and ours.by_torch == by_torch


@pytest.mark.parametrize("straight", [True, False])
def test_its_state_is_one_that_either_can_go_on_from(straight):
    ours, other = Taught("adam", straight=True).steps(4), Taught("adam", straight)
    file = io.BytesIO()
    torch.save([ours.model.state_dict(), ours.optimizer.state_dict(), torch.get_rng_state()], file)
    file.seek(0)
    weights, state, generator = torch.load(file, weights_only=True)
    other.model.load_state_dict(weights)
    other.optimizer.load_state_dict(state)
    ours.steps(3)
    torch.set_rng_state(generator)
    assert same(ours, other.steps(3))
    assert [state["step"].item() for state in other.optimizer.state.values()] == [7.0] * 4


class Own(Adam):
    """Some user's, which may do anything."""


@pytest.mark.parametrize(
    "make",
    [
        lambda weights: Adam(weights, fused=False),
        lambda weights: Adam(weights, fused=True, amsgrad=True),
        lambda weights: Adam([{"params": [weight]} for weight in weights], fused=True),
        lambda weights: Adam([*weights, torch.zeros(2, dtype=torch.float64, requires_grad=True)], fused=True),
        lambda weights: Own(weights, fused=True),
        lambda weights: torch.optim.SGD(weights, fused=True),
    ],
    ids=["not fused", "amsgrad", "groups", "precisions", "own class", "another optimiser"],
)
def test_it_suits_only_what_it_can_do(make):
    weights = list(nn.Linear(2, 2).parameters())
    assert StraightAdam.suits(OPTIMIZERS["adamw"](weights)) and not StraightAdam.suits(make(weights))


def small(weights: list[nn.Parameter], optimizer: Adam) -> int:
    """How many weights and means are below what single precision has all its digits for."""
    found = [*weights, *(state["exp_avg"] for state in optimizer.state.values())]
    return sum(int(((each != 0) & (each.abs() < 1.2e-38)).sum()) for each in found)


@pytest.mark.parametrize("unused", [False, True])
def test_numbers_that_fall_for_ever_become_0_and_others_stay(unused: bool) -> None:
    """Of weights whose gradients are 0 from a step on, beside one that torch itself moves; one may have none at all."""

    def taught(straight: bool) -> tuple[list[nn.Parameter], Adam]:
        weights = [nn.Parameter(torch.tensor(values)) for values in ([1.0, 2.0], [1e-31, 3.0, 0.0], [4.0])]
        optimizer = Adam(weights, lr=0.1, fused=True)
        take = StraightAdam(optimizer).step if straight else optimizer.step
        for step in range(1000):
            for weight in weights[: 2 if unused else 3]:
                weight.grad = torch.full_like(weight, float(step < 3)) * (weight != 1e-31)
            take()
        return weights, optimizer

    ours, own = taught(straight=True), taught(straight=False)
    assert small(*own) > 0 and small(*ours) == 0
    assert ours[0][1][0] == 0 and own[0][1][0] > 0  # the weight of 1e-31
    for one, other in zip(ours[0], own[0], strict=True):
        assert torch.equal(one[one != 0], other[one != 0])


def test_it_counts_on_from_the_state_that_it_finds() -> None:
    weight = nn.Parameter(torch.ones(3))
    optimizer = Adam([weight], fused=True)
    for _ in range(7):
        weight.grad = torch.ones(3)
        optimizer.step()
    assert StraightAdam(optimizer).taken == 7
