"""Steps of several runs of one shape, taken as one: their weights beside each other, one product for all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from vae.model.annealing import Count
from vae.model.noise import Noise
from vae.model.objectives import Batch, Objective
from vae.model.vae import VAE
from vae.settings.alike import NUMBERS
from vae.training.step import Descent, Means, means_of

KEPT = 6  # times that a run's weights are in memory: themselves, gradients, Adam's two means, and while they are moved
GRADIENTS = 3  # times what is kept for the gradient: itself, what is computed of it, and what lies in between


class Member(NamedTuple):
    """What takes a step: a run's model by its objective."""

    vae: VAE
    objective: Objective
    update: Descent | None = None  # None: validation


class Beside(NamedTuple):
    """The draws of several runs, each of its own noise, beside each other: (runs, *size)."""

    noises: Sequence[Noise]

    def normal(self, size: Sequence[int], like: Tensor, images: int) -> Tensor:
        return torch.stack([noise.normal(size, like, images) for noise in self.noises])

    def uniform(self, size: Sequence[int], like: Tensor, images: int) -> Tensor:
        return torch.stack([noise.uniform(size, like, images) for noise in self.noises])


class Asked(NamedTuple):
    """What a step asks its noise for."""

    kind: str  # "normal" or "uniform"
    size: tuple[int, ...]
    like: Tensor  # ()
    images: int

    def of(self, noise: Noise) -> Tensor:
        return getattr(noise, self.kind)(self.size, self.like, self.images)


class Rehearsal:
    """A noise that takes note of what it is asked for, and disturbs nobody's random numbers."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []

    def normal(self, size: Sequence[int], like: Tensor, images: int) -> Tensor:
        self.asked.append(Asked("normal", tuple(size), like.detach().new_empty(()), images))
        return torch.linspace(-1, 1, like.new_empty(size).numel(), dtype=like.dtype, device=like.device).view(*size)

    def uniform(self, size: Sequence[int], like: Tensor, images: int) -> Tensor:
        self.asked.append(Asked("uniform", tuple(size), like.detach().new_empty(()), images))
        return like.new_full(size, 0.5)


class Given(NamedTuple):
    """A noise whose draws are made already."""

    draws: Iterator[Tensor]

    def normal(self, size: Sequence[int], like: Tensor, images: int) -> Tensor:
        return next(self.draws)

    def uniform(self, size: Sequence[int], like: Tensor, images: int) -> Tensor:
        return next(self.draws)


class Stack:
    """The numbers of several models of one shape, beside each other, (models, …) each.

    The models' own weights become parts of `weights`, so that whoever changes the ones changes the others.
    """

    def __init__(self, models: Sequence[nn.Module]):
        self.weights: dict[str, Tensor] = {}
        self.fixed: dict[str, Tensor] = {}
        for name, weight in models[0].named_parameters():
            own = [model.get_parameter(name) for model in models]
            whole = _beside([each.detach() for each in own])
            for each, part in zip(own, whole.unbind(), strict=True):
                each.data = part
            (self.weights if weight.requires_grad else self.fixed)[name] = whole.requires_grad_(weight.requires_grad)
        for name, _ in models[0].named_buffers():
            self.fixed[name] = _beside([model.get_buffer(name) for model in models])


def _beside(tensors: Sequence[Tensor]) -> Tensor:
    """One tensor of all, in which each lies in memory as it did: optimisers go through several as they lie."""
    first = tensors[0]
    size, stride = (len(tensors), *first.shape), (first.numel(), *first.stride())
    whole = torch.empty_strided(size, stride, dtype=first.dtype, device=first.device)
    for part, each in zip(whole.unbind(), tensors, strict=True):
        part.copy_(each)
    return whole


class Together:
    """A step by all members of a stack, of batches beside each other (members, batch, …).

    Gradients are those of the sum of the losses: none of one member's in another's. Each then has an update of its own.
    """

    def __init__(self, stack: Stack, members: Sequence[Member]):
        self.stack = stack
        self.members = members
        self.first = _Whole(members[0].vae)
        self.tensors = [{f"vae.{name}": each for name, each in part.items()} for part in (stack.weights, stack.fixed)]
        some = next(iter(stack.weights.values()))
        self.numbers = numbers_of([member.objective for member in members], some)
        self.weights_over_time = annealed([member.objective for member in members], some)
        self.asked: dict[torch.Size, list[Asked]] = {}  # by the shape of a run's batch

    def __call__(self, batch: Batch, step: Count) -> Means:
        objective = self.members[0].objective
        asked = self._asked(batch)
        draws = [each.of(batch.noise) for each in asked]
        numbers = dict(self.numbers)
        if self.weights_over_time is not None:
            numbers["annealing"] = _at(self.weights_over_time, step)
        names: list[str] = []

        def of_one(weights: Any, fixed: Any, numbers: Any, images: Any, labels: Any, draws: Any) -> Any:
            own = given(objective, numbers)
            seen = Batch(images, labels, Given(iter(draws)))
            loss, terms = functional_call(self.first, (weights, fixed), (own, seen))
            means = means_of(own, terms, {"model": loss})
            names[:] = means.names
            return loss.value, means.values

        weights, fixed = self.tensors
        losses, means = vmap(of_one)(weights, fixed, numbers, batch.images, batch.labels, draws)
        if self.members[0].update is not None:
            self._update(losses.sum())
        return Means(tuple(names), means.detach())

    def _asked(self, batch: Batch) -> list[Asked]:
        shape = batch.images.shape[1:]
        if shape not in self.asked:
            labels = None if batch.labels is None else batch.labels[0]
            self.asked[shape], _ = rehearse(self.members[0], Batch(batch.images[0], labels))
        return self.asked[shape]

    def _update(self, loss: Tensor) -> None:
        for whole in self.stack.weights.values():
            whole.grad = None
        loss.backward(inputs=list(self.stack.weights.values()))
        for name, whole in self.stack.weights.items():
            gradients = [None] * len(self.members) if whole.grad is None else whole.grad.unbind()
            for member, gradient in zip(self.members, gradients, strict=True):
                member.vae.get_parameter(name).grad = gradient
        for member in self.members:
            assert member.update is not None
            member.update.apply()


class _Whole(nn.Module):
    """A model with its loss, as `functional_call` wants them."""

    def __init__(self, vae: VAE):
        super().__init__()
        self.vae = vae

    def forward(self, objective: Objective, batch: Batch) -> Any:
        return objective(self.vae, batch, 0)  # what changes over time is given


def rehearse(member: Member, batch: Batch) -> tuple[list[Asked], int]:
    """What the loss of a batch asks its noise for, and how many bytes are kept for its gradient."""
    noise, kept = Rehearsal(), 0

    def pack(tensor: Tensor) -> Tensor:
        nonlocal kept
        kept += tensor.nbytes
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        member.objective(member.vae, batch._replace(noise=noise), 0)
    return noise.asked, kept


def bytes_of(member: Member, batch: Batch) -> int:
    """What one more run of this shape takes of a device's memory."""
    _, kept = rehearse(member, batch)
    return KEPT * sum(weight.nbytes for weight in member.vae.parameters()) + GRADIENTS * kept


def numbers_of(objectives: Sequence[Objective], like: Tensor) -> dict[str, Tensor]:
    """The numbers of objectives of one class that are not the same in all, (objectives,) each."""
    first = objectives[0]
    names = NUMBERS[f"{type(first).__module__}.{type(first).__qualname__}"]
    numbers = [name for name in names if isinstance(getattr(first, name, None), float)]
    found = {name: [getattr(each, name) for each in objectives] for name in numbers}
    return {name: like.new_tensor(values) for name, values in found.items() if len({*values}) > 1}


def annealed(objectives: Sequence[Objective], like: Tensor) -> Tensor | None:
    """The weights over all steps, (objectives, steps + 1); None where nothing is annealed."""
    if all(each.annealed(0) is None for each in objectives):
        return None
    longest = max(each.steps for each in objectives)
    rows = [[each.annealed(step) for step in range(longest + 1)] for each in objectives]
    return like.new_tensor([[1.0 if weight is None else weight for weight in row] for row in rows])


def _at(weights: Tensor, step: Count) -> Tensor:
    """Of each row the weight at the step, or at a step of its own."""
    last = weights.shape[1] - 1
    if isinstance(step, int):
        return weights[:, min(step, last)]
    return weights.gather(1, step.clamp(max=last).unsqueeze(1)).squeeze(1)


def given(objective: Objective, numbers: Mapping[str, Tensor]) -> Objective:
    """The same objective with these in the place of its numbers."""
    other = copy(objective)
    vars(other).update(numbers)
    if "annealing" in numbers:
        vars(other)["annealing"] = lambda step: numbers["annealing"]
    return other
