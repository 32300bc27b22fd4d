"""Likelihoods of levels: exact probabilities of the 256 values that a pixel of 8 bits may have.

A logistic X over levels, rounded to the nearest of 0 … 255, where the outermost ones take all that is beyond them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent
from torch.nn.functional import logsigmoid, softplus

from vae.model.likelihoods import Likelihood

LEVELS = 256  # of a pixel in a file
HALF = (LEVELS - 1) / 2  # networks say means and scales as if pixels were in [−1, 1]
LEAST, MOST = -7.0, 7.0  # log-scales: from 97 % for one level to nearly 50 % for each of the outermost two
START = math.log(0.5 * math.sqrt(3) / math.pi)  # log-scale of a standard deviation of a quarter of all levels


class DiscretizedLogistic(Likelihood):
    """One logistic for each channel of a pixel, cut into levels: independent pixels with means and log-scales."""

    pixels = "levels"

    def planes(self, channels: int) -> int:
        """Means, then log-scales."""
        return 2 * channels

    def parameters_of(self, mean: Tensor) -> Tensor:
        """The mean, and the spread of natural images."""
        return torch.cat([2 * mean - 1, torch.full_like(mean, START)])

    def forward(self, params: Tensor) -> Independent:
        """(batch, 2 channels, height, width) → p(x|z)."""
        loc, log_scale = _precise(params).chunk(2, dim=-3)
        return Independent(_Rounded(loc, log_scale), 3, validate_args=False)


class LogisticMixture(Likelihood):
    """A mixture of logistics for each pixel, cut into levels (PixelCNN++, Salimans et al., 2017).

    The channels of a pixel share their component, whose means of green and blue are linear in the channels before.
    """

    pixels = "levels"

    def __init__(self, components: int):
        super().__init__()
        self.components = components

    def planes(self, channels: int) -> int:
        """Logits of all components, then their means, log-scales, and coefficients of each pair of channels."""
        return self.components * sum(_widths(channels))

    def parameters_of(self, mean: Tensor) -> Tensor:
        """Equal components that divide the spread of natural images among them, around the mean."""
        logits, _, log_scales, slopes = _widths(len(mean))
        places = ((torch.arange(self.components) + 0.5) / self.components).to(mean).logit() * math.exp(START)
        locs = (2 * mean - 1).unsqueeze(1) + places.view(-1, *[1] * (mean.dim() - 1))  # (channels, K, …)

        def all_at(value: float, count: int) -> Tensor:
            return locs.new_full((count, *locs.shape[1:]), value)

        parts = [all_at(0, logits), locs, all_at(START, log_scales), all_at(0, slopes)]
        return torch.cat(parts).flatten(0, 1)

    def forward(self, params: Tensor) -> _Mixture:
        """(batch, planes, height, width) → p(x|z)."""
        each = params.shape[-3] // self.components  # (channels + 1) (channels + 2) / 2
        channels = (math.isqrt(8 * each + 1) - 3) // 2
        parts = _precise(params).unflatten(-3, (each, self.components)).unbind(-4)
        ends = list(itertools.accumulate(_widths(channels)))
        return _Mixture(parts[0], *(parts[start:end] for start, end in itertools.pairwise(ends)))


def _widths(channels: int) -> tuple[int, int, int, int]:
    """How many parameters each component has: a logit, means, log-scales, and a slope for each pair of channels."""
    return 1, channels, channels, channels * (channels - 1) // 2


def _precise(params: Tensor) -> Tensor:
    """In 32 bits at the least: mixed precision leaves 16, in which neighbouring levels are the same."""
    return params.float() if params.element_size() < 4 else params


class _Rounded(Distribution):
    """round(X) / 255 of a logistic X cut to [0, 255], with mean and log-scale as if it were of [−1, 1].

    P(v) = σ(a) − σ(b) with a and b half a level above and below v. That is σ(a) σ(−b) (1 − exp(b − a)), a product whose
    logarithm loses no digits where the difference would.
    """

    def __init__(self, loc: Tensor, log_scale: Tensor):
        super().__init__(loc.shape, validate_args=False)
        self.loc = HALF + HALF * loc
        self.rate = torch.exp(-math.log(HALF) - log_scale.clamp(LEAST, MOST))  # 1 / scale, in levels

    def log_prob(self, value: Tensor) -> Tensor:
        """Of the level nearest to each value in [0, 1]."""
        level = _levels(value)
        above_lowest, below_highest = ((level > 0).to(level), (level < LEVELS - 1).to(level))
        upper = (level + 0.5 - self.loc) * self.rate
        beyond = logsigmoid(upper) * below_highest + logsigmoid(self.rate - upper) * above_lowest
        return beyond + torch.log(-torch.expm1(-self.rate)) * (above_lowest * below_highest)

    @property
    def mean(self) -> Tensor:
        """That of X cut to [0, 255], which rounding moves by less than half a level."""
        scaled = self.loc * self.rate
        mean = (softplus(scaled) - softplus(scaled - (LEVELS - 1) * self.rate)) / self.rate
        return (mean / (LEVELS - 1)).clamp(0, 1)

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        u = torch.rand(*sample_shape, *self.loc.shape, dtype=self.loc.dtype, device=self.loc.device)
        x = self.loc + u.logit(eps=torch.finfo(u.dtype).eps) / self.rate
        return x.round().clamp(0, LEVELS - 1) / (LEVELS - 1)


class _Mixture(Distribution):
    """Of parts (…, K, height, width): `logits`, and `locs` and `log_scales` of each channel, `slopes` of each pair.

    The mean of channels is taken in sequence: each one's is given the means of those before, in each component. That is
    E[x] but for what the ends of the scale cut off.
    """

    def __init__(self, logits: Tensor, locs: Parts, log_scales: Parts, slopes: Parts):
        *batch, _, height, width = logits.shape
        super().__init__(torch.Size(batch), torch.Size([len(locs), height, width]), validate_args=False)
        self.logits, self.locs, self.log_scales, self.slopes = logits, locs, log_scales, slopes

    def log_prob(self, value: Tensor) -> Tensor:
        """log Σ π p(red) p(green | red) p(blue | red, green) of each pixel, summed."""
        channels = (_levels(value) / (LEVELS - 1)).unsqueeze(-4).unbind(-3)
        log_p = self.logits.log_softmax(-3)
        for index, channel in enumerate(channels):
            log_p = log_p + self._given(channels[:index]).log_prob(channel)
        return log_p.logsumexp(-3).flatten(-2).sum(-1)

    @property
    def mean(self) -> Tensor:
        means: list[Tensor] = []
        for _ in self.locs:
            means.append(self._given(means).mean)
        weights = self.logits.softmax(-3)
        return torch.stack([(weights * mean).sum(-3) for mean in means], -3).clamp(0, 1)

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        logits = self.logits.expand(*sample_shape, *self.logits.shape)
        gumbel = -torch.empty_like(logits).exponential_().log()
        chosen = (logits + gumbel).argmax(-3, keepdim=True)  # (…, 1, height, width)

        def one(parts: Parts) -> Parts:
            return [part.expand_as(logits).gather(-3, chosen) for part in parts]

        component = _Mixture(chosen, one(self.locs), one(self.log_scales), one(self.slopes))
        drawn: list[Tensor] = []
        for _ in self.locs:
            drawn.append(component._given(drawn).sample())
        return torch.cat(drawn, -3)

    def _given(self, before: Sequence[Tensor]) -> _Rounded:
        """The next channel of each component, given those before it as numbers in [0, 1]."""
        index = len(before)
        loc, first = self.locs[index], index * (index - 1) // 2
        for slope, channel in zip(self.slopes[first:], before, strict=False):
            loc = loc + slope.tanh() * (2 * channel - 1)
        return _Rounded(loc, self.log_scales[index])


Parts = Sequence[Tensor]


def _levels(value: Tensor) -> Tensor:
    """0 … 255, the nearest to values in [0, 1]."""
    return (value * (LEVELS - 1)).round().clamp(0, LEVELS - 1)
