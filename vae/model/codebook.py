"""The codebook of the VQ-VAE and of residual quantisation: learned vectors, of which each place takes the nearest."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vae.common.types import Shape
from vae.model.codes import Choice, Codes, Coding, Grid
from vae.model.noise import Draw
from vae.model.processes import position_among, summed
from vae.model.vae import VAE, Terms, evaluating

POINTS = 2**14  # features that the first vectors are found among
ROUNDS = 10  # of k-means
EMPTY = 1e-5  # share of use below which a code's average says nothing


class Codebook(Coding):
    """z = eₖ, k = argminⱼ ‖h − eⱼ‖ at each place (van den Oord et al., 2017); with stages, of what is left by those
    before (Zeghidour et al., 2021).

    Vectors are exponential averages of what was coded by them, with a `decay`, or have a gradient where that is null.
    They begin as the middles of the first features. One in less than `revive` of an even use is moved to a feature of
    the batch. Gradients reach h as if coding were the identity, or with `gradient: rotation` as if it were the
    rotation and scaling of h onto eₖ (Fifty et al., 2024).
    """

    vectors_of: Tensor  # (stages, codes, latent_dim)
    use: Tensor  # average share of each code among those of its stage, (stages, codes)
    sums: Tensor  # average of what was coded by it, weighed by that share, (stages, codes, latent_dim)
    revived: Tensor  # how often a vector was moved since training began, ()

    def __init__(
        self,
        features: int,
        latent_dim: int,
        grid: Grid,
        maps: Shape | None,
        codes: int,
        stages: int,
        decay: float | None,
        commitment: float,
        gradient: str,
        revive: float,
        places: int | None,
    ):
        super().__init__(features, latent_dim, grid, maps, latent_dim)
        self.codes, self.stages = codes, stages
        self.decay, self.commitment, self.gradient, self.revive = decay, commitment, gradient, revive
        start = torch.randn(stages, codes, latent_dim) / latent_dim**0.5
        if decay is None:
            self.vectors_of = nn.Parameter(start)
        else:
            self.register_buffer("vectors_of", start)
        self.register_buffer("use", torch.full((stages, codes), 1 / codes))
        self.register_buffer("sums", start / codes)
        self.register_buffer("revived", torch.zeros(()))

    def attach(self, model: VAE) -> None:
        self._encoder = (model.backbone, model)  # a tuple, or they would become parts of this one, too

    @torch.no_grad()
    def start_at(self, images: Tensor, labels: Tensor, lr: float) -> None:
        """Let the vectors begin as the middles of some images' features, by k-means."""
        backbone, model = self._encoder
        count = min(len(images), max(1, POINTS // self.places))
        some = torch.arange(count) * len(images) // count
        with evaluating(model):
            features, *_ = backbone.encode(images[some].to(self.read.weight), labels[some])
            points = self.made(features).flatten(0, 1)
        for vectors, use, sums in zip(self.vectors_of, self.use, self.sums, strict=True):
            vectors.copy_(middles(points, self.codes))
            chosen = nearest(points, vectors)
            use.copy_(torch.bincount(chosen, minlength=self.codes) / len(points))
            sums.copy_(vectors * use.unsqueeze(-1))
            points = points - vectors[chosen]

    def choose(self, made: Tensor, draw: Draw) -> Choice:
        """(batch, places, latent_dim) → the nearest vectors, and what pulls features and vectors together."""
        index, sought, total = [], [], torch.zeros_like(made)
        pull = push = made.new_zeros(made.shape[:1])
        for vectors in self.vectors_of:
            left = made - total.detach()
            chosen = nearest(left.detach(), vectors.detach())
            found = vectors[chosen]
            index.append(chosen)
            sought.append(left.detach())
            pull = pull + (left - found.detach()).square().sum((1, 2))
            if self.decay is None:
                push = push + (left.detach() - found).square().sum((1, 2))
            total = total + found
        codes = Codes(torch.stack(index, -1), torch.stack(sought, 2))
        passed = _rotated(made, total.detach()) if self.gradient == "rotation" else made + (total - made).detach()
        parts = {"commitment": pull.mean(), "codes_revived": self.revived}
        if self.decay is None:
            parts["codebook"] = push.mean()
        return Choice(passed, codes, self.commitment * pull + push, parts)

    def penalties(self) -> list[tuple[str, str, str, str, str]]:
        """Commitment; and the codebook's own where it has a gradient."""
        over = "summed over places and dimensions, mean over images"
        found = [("commitment", "‖h − sg(e)‖²", f"{self.commitment:g}", over, "")]
        return found + ([("codebook", "‖sg(h) − e‖²", "1", over, "")] if self.decay is None else [])

    @torch.no_grad()
    def observe(self, terms: Terms) -> None:
        """Let the averages take part in a batch, and revive codes that hardly anything is coded by."""
        codes = terms.latent.codes
        assert codes is not None and codes.sought is not None
        for stage, vectors in enumerate(self.vectors_of):
            points, chosen = codes.sought[:, :, stage].flatten(0, 1), codes.chosen[:, :, stage].flatten()
            ones = nn.functional.one_hot(chosen, self.codes).to(points.dtype)
            both = summed(torch.cat([ones.sum(0, keepdim=True).mT, ones.mT @ points], 1))  # (codes, 1 + latent_dim)
            count = both[:, :1].sum()
            decay = 0.99 if self.decay is None else self.decay
            use, sums = self.use[stage], self.sums[stage]
            use.lerp_(both[:, 0] / count, 1 - decay)
            sums.lerp_(both[:, 1:] / count, 1 - decay)
            if self.decay is not None:
                known = (use > EMPTY / self.codes).unsqueeze(-1)
                vectors.copy_(torch.where(known, sums / use.unsqueeze(-1).clamp(min=1e-30), vectors))
            dead = use < self.revive / self.codes
            place = torch.where(dead.unsqueeze(-1), _some(points, self.codes), vectors)
            vectors.copy_(place)
            use.copy_(torch.where(dead, 1 / self.codes, use))
            sums.copy_(torch.where(dead.unsqueeze(-1), place / self.codes, sums))
            self.revived += dead.sum()

    def vectors(self, index: Tensor) -> Tensor:
        """Codes (…, places, stages) → the sum of their vectors, (…, places, latent_dim)."""
        return torch.stack([each[index[..., stage]] for stage, each in enumerate(self.vectors_of)]).sum(0)

    def nearest(self, vectors: Tensor) -> Tensor:
        """Vectors (…, places, latent_dim) → codes (…, places, stages), stage by stage."""
        index = []
        for each in self.vectors_of:
            index.append(nearest(vectors, each))
            vectors = vectors - each[index[-1]]
        return torch.stack(index, -1)


def nearest(points: Tensor, vectors: Tensor) -> Tensor:
    """The position of the vector (n, latent_dim) nearest to each point (…, latent_dim)."""
    return (vectors.square().sum(-1) - 2 * points @ vectors.mT).argmin(-1)  # ‖point‖² is the same for all


def middles(points: Tensor, count: int) -> Tensor:
    """(count, latent_dim): k-means of points (n, latent_dim), by Lloyd's rounds from points of n."""
    vectors = points[torch.randint(len(points), (count,))] if len(points) < count else _spread(points, count)
    for _ in range(ROUNDS):
        chosen = nearest(points, vectors)
        number = torch.bincount(chosen, minlength=count).unsqueeze(-1)
        sums = torch.zeros_like(vectors).index_add_(0, chosen, points)
        vectors = torch.where(number > 0, sums / number.clamp(min=1), points[torch.randint(len(points), (count,))])
    return vectors


def _spread(points: Tensor, count: int) -> Tensor:
    """Some of the points, far from each other: each with a probability ∝ its squared distance from those before."""
    chosen = [int(torch.randint(len(points), ()))]
    distance = torch.full((len(points),), torch.inf, dtype=points.dtype)
    for _ in range(count - 1):
        distance = torch.minimum(distance, (points - points[chosen[-1]]).square().sum(-1))
        weights = distance if bool(distance.any()) else torch.ones_like(distance)
        chosen.append(int(torch.multinomial(weights, 1)))
    return points[chosen]


def _some(points: Tensor, count: int) -> Tensor:
    """So many points of the whole batch, of which this process has a part, at random: the same in every process."""
    start, whole = position_among(len(points))
    place = torch.randint(whole, (count,), device=points.device) - start
    own = (place >= 0) & (place < len(points))
    return summed(torch.where(own.unsqueeze(-1), points[place.clamp(0, len(points) - 1)], 0))


def _rotated(made: Tensor, found: Tensor) -> Tensor:
    """λ R h with R h ∥ e the rotation in their plane and λ = ‖e‖/‖h‖, both taken for constants: equals e.

    R = I − 2 r rᵀ + 2 ê ĥᵀ with unit vectors ĥ, ê and r ∝ ĥ + ê.
    """
    with torch.no_grad():
        h, e = (nn.functional.normalize(each, dim=-1) for each in (made, found))
        r = nn.functional.normalize(h + e, dim=-1)
        scale = found.norm(dim=-1, keepdim=True) / made.norm(dim=-1, keepdim=True).clamp(min=1e-12)
    turned = made - 2 * (made * r).sum(-1, keepdim=True) * r + 2 * (made * h).sum(-1, keepdim=True) * e
    return scale * turned
