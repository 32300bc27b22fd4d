"""Priors over codes: uniform, and a network that reads the codes before each one."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.nn.functional import scaled_dot_product_attention

from vae.model.codes import Coding
from vae.model.ladder import zeros
from vae.model.priors import Prior
from vae.model.vae import VAE


class OverCodes(Prior):
    """Base: p(codes) of the top level's codes (places, stages), which it takes note of."""

    length: int  # of a sequence of all codes, the stages of a place beside each other

    def attach(self, model: VAE) -> None:
        coding = model.posterior
        if not isinstance(coding, Coding):
            raise ValueError(f"prior={type(self).__name__}: needs codes, as posterior=codebook makes them")
        self.codes, self.shape = coding.codes, torch.Size([coding.places, coding.stages])
        self.length = coding.length


class Uniform(OverCodes):
    """Every code at every place with the same probability: −log p = places · stages · log K."""

    def forward(self, state: Tensor | None = None) -> UniformCodes:
        """The prior, with event shape (places, stages)."""
        return UniformCodes(self.codes, self.shape)


class Autoregressive(OverCodes):
    """p(codes) = Πₜ p(cₜ | c₁ … cₜ₋₁, class): a small causal transformer (Vaswani et al., 2017), row by row.

    It reads the places around by a masked convolution (van den Oord et al., 2016), and all before by attention. It is
    optimised by itself, on codes that it has no say in, and begins as the uniform prior.
    """

    player = "codes"

    def __init__(self, width: int, layers: int, heads: int):
        super().__init__()
        self.width, self.layers, self.heads = width, layers, heads

    def attach(self, model: VAE) -> None:
        super().attach(model)
        coding = model.posterior
        assert isinstance(coding, Coding)
        width, classes = self.width, model.backbone.classes
        self.begin = nn.Linear(max(1, classes), width)  # of the class; of 1 where there are none
        self.seen = nn.Embedding(self.shape[1] * self.codes, width)  # a stage's own codes
        self.around = Around(width)
        self.grid = coding.grid
        self.place = nn.Parameter(0.02 * torch.randn(self.length, width))
        self.blocks = nn.ModuleList([Block(width, self.heads) for _ in range(self.layers)])
        self.logits = nn.Sequential(nn.LayerNorm(width), zeros(nn.Linear(width, self.codes)))
        self.conditional = classes > 0

    def forward(self, state: Tensor | None = None) -> SequenceOfCodes:
        """The prior, with event shape (places, stages); of a conditional model given classes (…, classes)."""
        if self.conditional and state is None:
            raise ValueError("labels: a conditional model needs a class for each image")
        return SequenceOfCodes(self, state if self.conditional else None)

    def after(self, codes: Tensor, start: Tensor) -> Tensor:
        """Logits (n, length, codes) of each code given those before, of codes (n, length) and starts (n, width)."""
        seen = self.embedded(codes)
        maps = seen.unflatten(1, self.shape).sum(2).mT.unflatten(2, self.grid)  # (n, width, height, width of the grid)
        around = self.around(maps).flatten(2).mT.repeat_interleave(self.shape[1], 1)
        x = torch.cat([start.unsqueeze(1), seen[:, :-1]], 1) + self.place + around
        for block in self.blocks:
            x = block(x)
        return self.logits(x)

    def embedded(self, codes: Tensor, first: int = 0) -> Tensor:
        """Codes (n, t) from the position `first` on → (n, t, width)."""
        stage = (first + torch.arange(codes.shape[1], device=codes.device)) % self.shape[1]
        return self.seen(codes + stage * self.codes)

    def starts(self, state: Tensor | None, shape: Sequence[int]) -> Tensor:
        """What a sequence begins with, (*shape, width)."""
        like = self.begin.weight
        known = like.new_ones(1) if state is None else state.to(like)
        return self.begin(known).expand(*shape, -1)


class Around(nn.Module):
    """A convolution whose window sees only the places before its own, in reading order.

    Maps (n, width, height, width of the grid) → the same.
    """

    REACH = 2  # places to each side
    mask: Tensor

    def __init__(self, width: int):
        super().__init__()
        self.weight = nn.Parameter(nn.Conv2d(width, width, 2 * self.REACH + 1).weight.detach())
        before = torch.ones(self.weight.shape[2:]).flatten()
        before[len(before) // 2 :] = 0
        self.register_buffer("mask", before.view(self.weight.shape[2:]), persistent=False)

    def forward(self, maps: Tensor) -> Tensor:
        return nn.functional.conv2d(maps, self.weight * self.mask, padding=self.REACH)

    def at(self, maps: Tensor, row: int, column: int) -> Tensor:
        """The same at one place alone, (n, width)."""
        size = 2 * self.REACH + 1
        window = nn.functional.pad(maps, [self.REACH] * 4)[:, :, row : row + size, column : column + size]
        return torch.einsum("nwij,vwij->nv", window, self.weight * self.mask)


class Block(nn.Module):
    """Causal self-attention and two layers at each position, both added to x behind a normalisation."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.before, self.read, self.write = nn.LayerNorm(width), nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.further = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor, past: list[Tensor] | None = None) -> Tensor:
        """(n, t, width) → the same. With the `past`, x is the next position, and is kept there."""
        q, k, v = self.read(self.before(x)).unflatten(-1, (3 * self.heads, -1)).transpose(1, 2).chunk(3, 1)
        if past is not None:
            if past:
                k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
            past[:] = k, v
        looked = scaled_dot_product_attention(q, k, v, is_causal=past is None)  # (n, heads, t, width / heads)
        x = x + self.write(looked.transpose(1, 2).flatten(2))
        return x + self.further(x)


class UniformCodes(Distribution):
    """Codes that are drawn by equal chances, independently."""

    arg_constraints = {}  # noqa: RUF012 (torch's own)

    def __init__(self, codes: int, shape: torch.Size):
        self.codes = codes
        super().__init__(torch.Size(), shape, validate_args=False)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        return torch.randint(self.codes, (*sample_shape, *self.event_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        cost = math.prod(self.event_shape) * math.log(self.codes)
        return torch.full(value.shape[:-2], -cost, device=value.device)

    def at(self, temperature: float) -> UniformCodes:
        """The same: equal logits are so at any temperature."""
        return self


class SequenceOfCodes(Distribution):
    """What an autoregressive prior says of codes, given classes (…, classes) if it knows of them.

    A sample's shape ends in that of the classes.
    """

    arg_constraints = {}  # noqa: RUF012 (torch's own)

    def __init__(self, prior: Autoregressive, state: Tensor | None, temperature: float = 1.0):
        self.prior, self.state, self.temperature = prior, state, temperature
        super().__init__(torch.Size(), prior.shape, validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """Codes (…, places, stages) → (…,)."""
        flat = value.flatten(-2)
        start = self.prior.starts(self.state, flat.shape[:-1]).flatten(0, -2)
        logits = self.prior.after(flat.flatten(0, -2), start) / self.temperature
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        found = -nn.functional.cross_entropy(logits.mT, flat.flatten(0, -2), reduction="none").sum(-1)
        return found.unflatten(0, flat.shape[:-1])

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """(*sample_shape, places, stages), each code drawn after those before, which are read but once."""
        prior = self.prior
        x = prior.starts(self.state, sample_shape).reshape(-1, prior.width).unsqueeze(1)  # (n, 1, width)
        maps = x.new_zeros(len(x), prior.width, *prior.grid)
        pasts: list[list[Tensor]] = [[] for _ in prior.blocks]
        drawn: list[Tensor] = []
        for position in range(prior.length):
            row, column = divmod(position // prior.shape[1], prior.grid[1])
            x = x + prior.place[position] + prior.around.at(maps, row, column).unsqueeze(1)
            for block, past in zip(prior.blocks, pasts, strict=True):
                x = block(x, past)
            logits = prior.logits(x[:, 0]).float()
            if self.temperature > 0:
                drawn.append(torch.multinomial((logits / self.temperature).softmax(-1), 1))
            else:
                drawn.append(logits.argmax(-1, keepdim=True))
            x = prior.embedded(drawn[-1], position)
            maps[:, :, row, column] += x[:, 0]
        return torch.cat(drawn, 1).reshape(*sample_shape, *self.event_shape)

    def at(self, temperature: float) -> SequenceOfCodes:
        """The same with logits divided by a temperature; at 0 each code is the likeliest."""
        return SequenceOfCodes(self.prior, self.state, temperature)
