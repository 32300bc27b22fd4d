"""The variational autoencoder, as its equations read; knows nothing of training, configuration or files."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import reduce
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from vae.model.backbones import Backbone
from vae.model.draws import draws
from vae.model.joint import Joint
from vae.model.levels import Latent, Level
from vae.model.likelihoods import Likelihood
from vae.model.noise import Draw
from vae.model.part import Part
from vae.model.posteriors import Posterior
from vae.model.priors import Prior

T = TypeVar("T")


class Terms(NamedTuple):
    """What the model says about a batch, before any reduction; with k samples z of each image, of shape (k, batch)."""

    recon: Tensor  # −log p(x|z), (batch,), nats
    latents: tuple[Latent, ...]  # of each level, the top first
    p_x: Distribution  # p(x|z)

    @property
    def latent(self) -> Latent:
        """Of the only level."""
        return only(self.latents)

    @property
    def kl(self) -> Tensor:
        """KL(q(z|x) ‖ p(z)) over all levels, (batch,), nats; also with k samples where it is exact."""
        return reduce(operator.add, [latent.kl for latent in self.latents])

    @property
    def total(self) -> Tensor:
        """−ELBO of each image, (batch,), nats."""
        return self.recon + self.kl

    @property
    def penalty(self) -> Tensor | None:
        """What the loss has besides, (batch,), no nats."""
        found = [latent.penalty for latent in self.latents if latent.penalty is not None]
        return reduce(operator.add, found) if found else None

    @property
    def log_weight(self) -> Tensor:
        """log p(x, z) − log q(z|x) of each image, (batch,), nats."""
        return reduce(operator.add, [latent.log_weight for latent in self.latents]) - self.recon


def only(levels: Sequence[T]) -> T:
    """The single level, for what knows of one vector of latents."""
    if len(levels) != 1:
        raise ValueError(f"a model of {len(levels)} levels of latents: this needs one of a single level")
    return levels[0]


class VAE(nn.Module):
    """p(x, z) = p(x|z) p(z) with the amortised posterior q(z|x) (Kingma and Welling, 2014).

    z has one level or several, the top first: each reads what those above it have made. Where the backbone knows of
    classes, p(x|z) and q(z|x) are given the label, too; else labels are ignored.
    """

    def __init__(self, backbone: Backbone, levels: Sequence[Level], likelihood: Likelihood):
        super().__init__()
        self.backbone = backbone
        self.levels: Sequence[Level] = nn.ModuleList(levels)  # type: ignore[assignment]
        self.likelihood = likelihood
        for part in self.parts:
            part.attach(self)

    @property
    def parts(self) -> tuple[Part, ...]:
        """All that the model is made of."""
        pairs = ((level.prior, level.encoding) for level in self.levels)
        return self.backbone, *itertools.chain.from_iterable(pairs), self.likelihood

    @property
    def prior(self) -> Prior:
        """The top level's."""
        return self.levels[0].prior

    @property
    def posterior(self) -> Posterior:
        """The top level's."""
        encoding = self.levels[0].encoding
        assert isinstance(encoding, Posterior)
        return encoding

    def start_at(self, images: Tensor, labels: Tensor, lr: float = 1e-3) -> None:
        """Let training at a learning rate begin from what these training images (n, channels, height, width) tell."""
        for part in self.parts:
            part.start_at(images, labels, lr)

    def observe(self, terms: Terms) -> None:
        """Let the parts learn from a training step what gradients do not teach."""
        for part in self.parts:
            part.observe(terms)

    @property
    def is_certain(self) -> bool:
        """Whether z is a function of the image, so that −ELBO is known without draws and no draws tighten it."""
        return all(level.encoding.is_certain for level in self.levels)

    @property
    def numbers(self) -> int:
        """How many numbers the z of all levels are."""
        return sum(level.numbers for level in self.levels)

    def p(self, labels: Tensor | None = None) -> Distribution:
        """p(z) of all levels' z beside each other, (numbers,), the top first.

        Those below the top of a conditional model depend on the labels (…,).
        """
        return self.p_below(self.levels[0].p(self._begun(labels)), labels)

    def p_below(self, top: Distribution, labels: Tensor | None = None) -> Distribution:
        """The same where the top level's prior is known."""
        if len(self.levels) == 1:
            return top
        state = self.backbone.begin(labels, next(self.parameters()))
        return Joint(self.levels, lambda place, state: self.levels[place].prior(state) if place else top, state)

    def _begun(self, labels: Tensor | None) -> Tensor | None:
        """What the top level's prior may depend on."""
        return None if labels is None else self.backbone.begin(labels, next(self.parameters()))

    def q(self, x: Tensor, labels: Tensor | None = None) -> Distribution:
        """q(z|x) of all levels' z beside each other, of images (batch, channels, height, width), labels (batch,)."""
        return self.q_of(self.backbone.encode(x, labels), labels)

    def q_of(self, features: Sequence[Tensor], labels: Tensor | None = None) -> Distribution:
        """The same of the images' features of each level, (batch, features) each."""
        top = self.prior(self._begun(labels))  # once: a VampPrior's takes long

        def given(place: int, state: Tensor | None) -> Distribution:
            level = self.levels[place]
            assert isinstance(level.encoding, Posterior)
            return level.encoding.q_given(features[place], level.prior(state) if place else top, state)

        state = self.backbone.begin(labels, features[0])
        return given(0, state) if len(self.levels) == 1 else Joint(self.levels, given, state, features[0].shape[:1])

    @torch.inference_mode()
    def sample(self, n: int, labels: Tensor | int | None = None) -> Tensor:
        """E[x|z] of n draws of z from the prior, (n, channels, height, width); of one class, or each of its own."""
        classes = None if labels is None else torch.as_tensor(labels)
        return self.decode(draws(self.p(classes), n), classes).mean

    def encode(self, x: Tensor, labels: Tensor | None = None) -> Distribution:
        """q(z|x) of the top level's z, of images (batch, channels, height, width) with labels (batch,)."""
        return self.posterior.q(self.backbone.encode(x, labels)[0], self.prior(self._begun(labels)))

    def decode(self, z: Tensor, labels: Tensor | None = None) -> Distribution:
        """p(x|z) of all levels' latents beside each other, (…, numbers), with labels that broadcast to (…,).

        Of the upper levels' alone, too: the others are at the mean that their prior then has.
        """
        return self._image(self.state(z, labels))

    def state(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """What the levels make of their latents, (…, size), for the backbone's image."""
        state = self.backbone.begin(None if labels is None else labels.expand(z.shape[:-1]), z)
        for level in self.levels:
            part, z = z[..., : level.numbers], z[..., level.numbers :]
            state = level.merge(state, part if part.shape[-1] else level.prior(state).mean)
        assert state is not None
        return state

    def _image(self, state: Tensor) -> Distribution:
        """p(x|z) of what the levels have made, (…, size)."""
        params = self.backbone.image(state.flatten(0, -2))
        params = params.to(torch.promote_types(params.dtype, torch.float32))  # a density needs more than 16 bits
        return self.likelihood(params.unflatten(0, state.shape[:-1]))

    def forward(self, x: Tensor, labels: Tensor | None = None, draw: Draw = Draw()) -> Terms:  # noqa: B008
        """z of each image and the terms of −ELBO = E_q[−log p(x|z)] + KL(q(z|x) ‖ p(z))."""
        features, latents = self.backbone.encode(x, labels), []
        state = self.backbone.begin(labels, features[0])
        for level, seen in zip(self.levels, features, strict=True):
            latents.append(level.encoding(seen, state, level.prior(state), draw))
            state = level.merge(state, latents[-1].z)
            draw = draw._replace(samples=None)  # one z for each of the level above
        assert state is not None
        p_x = self._image(state)
        return Terms(-p_x.log_prob(x), tuple(latents), p_x)


@contextmanager
def evaluating(vae: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while: in training mode an optimal σ would fit the images whose density is asked for."""
    training = vae.training
    vae.eval()
    try:
        yield
    finally:
        vae.train(training)
