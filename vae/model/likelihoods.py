"""Likelihoods p(x|z): modules that turn the decoder's image parameters into a distribution over images.

Each yields event_dim 3, so that `log_prob` is summed over channels and pixels and has shape (batch,).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch import distributions as torch_distributions
from torch.distributions import Distribution, Independent, Normal, register_kl

from vae.model.part import Part

if TYPE_CHECKING:
    from vae.model.vae import Terms


class Likelihood(Part):
    """Base: one parameter for each channel of a pixel, the logit of its mean."""

    pixels = "unit"  # log p(x|z) is a density on [0, 1]; or a probability, "binary" of 0 and 1, or of "levels"
    link: str | None = None  # from parameters to the mean, by the name that the explorer's page knows
    whole_batch = False  # p(x|z) of an image depends on the others of its batch

    def planes(self, channels: int) -> int:
        """How many parameters a pixel has: the channels of the decoder's output."""
        return channels

    def parameters_of(self, mean: Tensor) -> Tensor:
        """Parameters (planes, …) around which training begins, of mean pixels (channels, …).

        Within ±7, because a pixel that is always black has none.
        """
        return mean.logit(eps=1e-3)

    def forward(self, params: Tensor) -> Distribution:
        """(batch, planes, height, width) → p(x|z), with event shape (channels, height, width)."""
        raise NotImplementedError

    def noise(self, beta: float | None) -> str:
        """What a noise level of the pixels makes of β, for the ledger; empty where there is none."""
        return ""


class Bernoulli(Likelihood):
    """Independent Bernoulli pixels with the parameters as logits; for grey pixels binary cross-entropy."""

    pixels = "binary"
    link = "sigmoid"

    def forward(self, params: Tensor) -> Independent:
        """(batch, channels, height, width) → p(x|z)."""
        pixels = torch_distributions.Bernoulli(logits=params, validate_args=False)  # grey pixels would not validate
        return _BernoulliImages(pixels, 3, validate_args=False)


class _BernoulliImages(Independent):
    """torch's own, without two passes over all pixels that only turn signs."""

    def log_prob(self, value: Tensor) -> Tensor:
        """−Σ of the pixels' binary cross-entropies."""
        logits = self.base_dist.logits
        if logits.shape != value.shape:
            logits, value = torch.broadcast_tensors(logits, value)
        cross_entropy = nn.functional.binary_cross_entropy_with_logits(logits, value, reduction="none")
        return -cross_entropy.flatten(-3).sum(-1)


class ContinuousBernoulli(Likelihood):
    """The Bernoulli's formula normalised on [0, 1] (Loaiza-Ganem and Cunningham, 2019), parameters as logits."""

    link = "continuous_bernoulli"

    def forward(self, params: Tensor) -> Independent:
        """(batch, channels, height, width) → p(x|z)."""
        return Independent(_StableContinuousBernoulli(logits=params, validate_args=False), 3, validate_args=False)


class _StableContinuousBernoulli(torch_distributions.ContinuousBernoulli):
    """p(x) ∝ exp(λx) on [0, 1] with the logit λ = 2u.

    torch's own formulas clamp the sigmoid of λ: in single precision they integrate to 0.4 at λ = 40 and know no mean
    below 0.06, while decoders do say −40 for black pixels.
    """

    def log_prob(self, value: Tensor) -> Tensor:
        """λ (x − ½) − log (sinh u / u)."""
        u = self.logits.abs() / 2
        large = u.clamp(min=_SERIES)
        log_sinhc = torch.where(
            u < _SERIES, u**2 / 6 - u**4 / 180, large + torch.log1p(-torch.exp(-2 * large)) - torch.log(2 * large)
        )
        return self.logits * (value - 0.5) - log_sinhc

    def icdf(self, value: Tensor) -> Tensor:
        """log(1 + q (e^λ − 1)) / λ, by which torch draws, too."""
        rate = self.logits.abs().clamp(min=1e-6)  # as good as none
        q = torch.where(self.logits > 0, 1 - value, value)
        x = -torch.log1p(q * torch.expm1(-rate)) / rate  # of density ∝ exp(−rate x)
        return torch.where(self.logits > 0, 1 - x, x)

    @property
    def mean(self) -> Tensor:
        """½ (1 + coth u − 1 / u)."""
        u = self.logits / 2
        large = torch.where(u.abs() < _SERIES, _SERIES, u)
        return 0.5 * (1 + torch.where(u.abs() < _SERIES, u / 3 - u**3 / 45, 1 / torch.tanh(large) - 1 / large))


@register_kl(_BernoulliImages, _BernoulliImages)
@register_kl(_StableContinuousBernoulli, _StableContinuousBernoulli)
def _kl_at_the_mean(p: Distribution, q: Distribution) -> Tensor:
    """log p(m) − log q(m) at m = E_p[x]: both are linear in x. torch's own is infinite where q rounds to 0 or 1."""
    return p.log_prob(p.mean) - q.log_prob(p.mean)


_SERIES = 0.05  # below, the first two terms of the series in u are exact to 1e-9, and the formulas lose digits


class Gaussian(Likelihood):
    """N(sigmoid(params), σ²) with one σ for all pixels: fixed, `learned` with the weights, or `optimal`.

    The optimal σ² of a batch is its mean squared error (Rybkin et al., 2021). Outside of training it is the running
    mean over training batches, so that no image has a say in its own density.
    """

    link = "sigmoid"
    batches: Tensor

    def __init__(self, sigma: float | str):
        super().__init__()
        self.optimal = sigma == "optimal"
        self.learned = _Learned() if sigma == "learned" else None
        self.whole_batch = self.optimal
        if self.optimal:
            self.register_buffer("log_sigma", torch.tensor(0.0))
            self.register_buffer("batches", torch.tensor(0))  # that log_sigma is the running mean of
        elif self.learned is None:
            self.log_sigma = nn.Parameter(torch.tensor(math.log(float(sigma))), requires_grad=False)

    def start_at(self, images: Tensor, labels: Tensor, lr: float) -> None:
        """Let a learned σ begin as the error of the images' mean."""
        if self.learned is not None:
            self.learned.start_at(images.var(0, correction=0).mean(), lr, images[0].numel())

    def forward(self, params: Tensor) -> Independent:
        """(batch, channels, height, width) → p(x|z)."""
        mean = params.sigmoid()
        if self.optimal and self.training:
            return Independent(_FittedNormal(mean, self.log_sigma), 3, validate_args=False)
        log_sigma = self.log_sigma if self.learned is None else self.learned()
        return Independent(Normal(mean, log_sigma.exp(), validate_args=False), 3, validate_args=False)

    @torch.no_grad()
    def observe(self, terms: Terms) -> None:
        """Let the optimal σ of training take part in the running mean."""
        if self.optimal:
            assert isinstance(terms.p_x, Independent) and isinstance(terms.p_x.base_dist, _FittedNormal)
            self.batches += 1
            share = (1 / self.batches).clamp(min=0.2)  # a plain mean at first, in which the start at σ = 1 has no part
            self.log_sigma.add_(share * (terms.p_x.base_dist.fitted_log_sigma - self.log_sigma))

    def noise(self, beta: float | None) -> str:
        """How σ is set, and what β, if there is one, weighs where the loss is read as a squared error."""
        if self.optimal or self.learned is not None:
            said, sigma = f"σ {'optimal for each batch' if self.optimal else 'learned'}", None
        else:
            sigma = self.log_sigma.exp().item()
            said = f"σ = {sigma:g}"
        if beta is None:
            return said
        weighed = f"2σ²β, β = {beta:g}" if sigma is None else f"2σ²β = {2 * sigma**2 * beta:g}"
        return f"{said}; in units of the squared error β is {weighed}"


class _Learned(nn.Module):
    """log σ = start + speed · free, of which the optimiser adjusts `free`.

    Adam moves a number by its learning rate a step, whatever the gradient; but this one has to follow what all weights
    together do to the error.
    """

    RATE = 0.02  # of log σ a step: half as much lags behind a quick fall of the error, twice as much makes σ tremble
    # Of the gradient D (1 − MSE / σ²) of D pixels: where σ is wrong by more than an eighth, which is beyond a batch's
    # noise. Adam would remember larger ones for a thousand steps, in which σ would hardly move.
    BOUND = 0.25

    start: Tensor
    speed: Tensor
    bound: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.free = nn.Parameter(torch.tensor(0.0))
        self.register_buffer("start", torch.tensor(0.0))
        self.register_buffer("speed", torch.tensor(1.0))
        self.register_buffer("bound", torch.tensor(math.inf))

    def start_at(self, variance: Tensor, lr: float, pixels: int) -> None:
        """Begin at this σ², and go `RATE` a step at this learning rate."""
        self.start.copy_(0.5 * variance.clamp(min=_LEAST_VARIANCE).log())
        self.speed.fill_(self.RATE / lr)
        self.bound.fill_(self.BOUND * pixels)

    def forward(self) -> Tensor:
        """log σ, ()."""
        # Its gradient is that in log σ and not `speed` times as much, which would be most of the norm that is clipped.
        log_sigma = self.start + self.free + (self.speed - 1) * self.free.detach()
        if log_sigma.requires_grad:
            log_sigma.register_hook(lambda gradient: gradient.clamp(-self.bound, self.bound))
        return log_sigma


_LEAST_VARIANCE = 1e-6


class _FittedNormal(Normal):
    """A Normal whose σ is the one that makes the values that `log_prob` is asked for most likely."""

    fitted_log_sigma: Tensor  # of the last values

    def __init__(self, loc: Tensor, log_sigma: Tensor):
        super().__init__(loc, log_sigma.exp().expand_as(loc), validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        log_variance = (value - self.loc).square().mean().clamp(min=_LEAST_VARIANCE).log()
        self.fitted_log_sigma = 0.5 * log_variance
        return Normal(self.loc, self.fitted_log_sigma.exp(), validate_args=False).log_prob(value)
