"""The distribution of several levels' latents as one vector."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from torch.distributions import Distribution

from vae.model.distributions import from_noise
from vae.model.levels import Level

Given = Callable[[int, "Tensor | None"], Distribution]  # of a level's z, by its place and what those above have made


class Joint(Distribution):
    """z of all levels beside each other, (…, numbers), the top first, each level's given those above it.

    `state` is what the top level adds its z to. A sample's shape ends in that of the classes there, if there are any.
    Gradients flow through `log_prob` alone.
    """

    arg_constraints = {}  # noqa: RUF012 (torch's own)

    def __init__(self, levels: Sequence[Level], given: Given, state: Tensor | None, batch_shape: Sequence[int] = ()):
        self.levels, self.given, self.state = levels, given, state
        self.sizes = [level.numbers for level in levels]
        super().__init__(torch.Size(batch_shape), torch.Size([sum(self.sizes)]), validate_args=False)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """(*sample_shape, *batch_shape, numbers)."""
        shapes = [torch.Size(sample_shape), *(torch.Size() for _ in self.levels[1:])]  # one z for each of that above
        with torch.no_grad():
            return self._chosen([lambda p, shape=shape: p.sample(shape) for shape in shapes])  # type: ignore[misc]

    def of_noise(self, noise: Tensor, choice: Tensor | None = None) -> Tensor:
        """Draws as a map of standard-normal noise (batch, numbers), see `vae.model.distributions.from_noise`."""
        parts = noise.split(self.sizes, -1)
        return self._chosen([lambda p, part=part: from_noise(p, part, choice) for part in parts])  # type: ignore[misc]

    @torch.no_grad()
    def along(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation (…, numbers) of each level given those above in z (…, numbers)."""
        means, scales = zip(*((p.mean, p.stddev) for p, _ in self._each(z)), strict=True)
        return _beside(means), _beside(scales)

    @property
    def variance(self) -> Tensor:
        """Each level's given the means of those above."""
        return self.along(self.mean)[1].square()

    @property
    @torch.no_grad()
    def mean(self) -> Tensor:
        """Each level's mean given the means of those above, which is no mean of all."""
        return self._chosen([lambda p: p.mean] * len(self.levels))

    def _chosen(self, choices: Sequence[Callable[[Distribution], Tensor]]) -> Tensor:
        state, parts = self.state, []
        for place, (level, choice) in enumerate(zip(self.levels, choices, strict=True)):
            parts.append(choice(self.given(place, state)))
            state = level.merge(state, parts[-1])
        return _beside(parts)

    def log_prob(self, z: Tensor) -> Tensor:
        """Density of latents (…, numbers), (…,)."""
        found = [p.log_prob(part) for p, part in self._each(z)]
        return torch.stack(torch.broadcast_tensors(*found)).sum(0)

    def _each(self, z: Tensor) -> Iterator[tuple[Distribution, Tensor]]:
        """Each level's distribution given those above in z, and its own part of z."""
        state = self.state
        for place, (level, part) in enumerate(zip(self.levels, z.split(self.sizes, -1), strict=True)):
            yield self.given(place, state), part
            state = level.merge(state, part)


def of_noise(p: Distribution, noise: Tensor, choice: Tensor | None = None) -> Tensor:
    """Draws of p, whether of one level or of several, as its map of noise (batch, numbers)."""
    return p.of_noise(noise, choice) if isinstance(p, Joint) else from_noise(p, noise, choice)


def _beside(parts: Sequence[Tensor]) -> Tensor:
    shape = torch.broadcast_shapes(*(part.shape[:-1] for part in parts))
    return torch.cat([part.expand(*shape, -1) for part in parts], -1)
