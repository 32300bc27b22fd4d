"""Draw the pictures of docs/theory.md again: toys whose truth is known, and one trained run."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import installed  # noqa: F401
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import normalize

from vae.common.files import relative
from vae.common.seeding import apart
from vae.entry import programs
from vae.evaluation import theory as toys
from vae.evaluation.disentanglement import mig
from vae.evaluation.geometry import ellipse
from vae.evaluation.likelihood import weighed
from vae.evaluation.true_posterior import true_posterior as gridded
from vae.figures import theory as figures
from vae.figures.theory import Candidate, Checked, Estimates, Plane
from vae.model import distributions
from vae.model.discretized import HALF, LEVELS, LogisticMixture
from vae.model.distributions import DiagonalNormal, FullNormal, TiedNormal, from_noise
from vae.model.ladder import Above, Beside
from vae.model.levels import Level
from vae.model.priors import Correlated, Isotropic
from vae.model.vae import VAE

ROOT = Path(__file__).parent.parent
OUT = ROOT / "docs" / "theory"
RUN = ROOT / "outputs" / "gallery" / "tutorial_2d"
TRAIN = f"python train.py experiment=tutorial_2d hydra.run.dir={RUN.relative_to(ROOT).as_posix()}"
COUNTS = (1, 3, 10, 30, 100, 300, 1000, 3000)  # draws of an estimate
REPETITIONS = 40  # of each estimate
SHOWN = 500  # points in a plane
GRADIENTS = 20_000  # of each kind

Normals = DiagonalNormal | FullNormal

EXAMPLES = """
examples:
  python scripts/theory.py                         # all of them, in less than a minute
  python scripts/theory.py --list
  python scripts/theory.py kl collapse
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw what the command line asks for, and print one path a line."""
    programs.run(draw, _parser().parse_args(arguments))


def draw(pictures: Sequence[str], out: Path, only_list: bool) -> None:
    """Draw these pictures, or all of them, into `out`."""
    for name in pictures:
        if name not in PICTURES:
            raise ValueError(f"picture={name}: must be one of {', '.join(PICTURES)}")
        if name == "true_posterior" and not RUN.is_dir():
            raise ValueError(f"picture={name}: needs the run of: {TRAIN}")
    for name in pictures or PICTURES:
        if only_list:
            print(f"{name:<20}{PICTURES[name].__doc__}")
        elif name == "true_posterior" and not RUN.is_dir():
            print(f"left out: {name}, which needs the run of: {TRAIN}")
        else:
            with apart("theory", name):
                figure = PICTURES[name]()
            programs.save_picture(out / f"{name}.png", figure)
            print(relative(out / f"{name}.png"))


def importance() -> Figure:
    """log p(x) from draws of the prior and of q(z|x), in 2 and in 10 dimensions"""
    panels = []
    for latent_dim in (2, 10):
        toy = toys.linear_toy(latent_dim, pixels=50, noise=1.0)
        x, labels = toy.x.expand(REPETITIONS, -1, -1, -1), torch.zeros(REPETITIONS, dtype=torch.int64)
        p = Isotropic(latent_dim).double()()
        series = {}
        for name, source in (("z from the prior", p), ("z from q(z|x)", toy.q)):
            each = DiagonalNormal(source.loc.expand(REPETITIONS, -1), source.scale.expand(REPETITIONS, -1))
            with torch.no_grad():
                found = [weighed(toy.vae, x, labels, each, p, count).log_p for count in COUNTS]
            series[name] = torch.stack(found)
        limits = (toy.log_p - 60, toy.log_p + 8)
        panels.append(Estimates(f"{latent_dim} latent dimensions", series, toy.log_p, limits))
    return figures.convergence(panels, COUNTS, "log p(x), exact", ("draws of z", "estimate of log p(x), nats"))


def elbo() -> Figure:
    """log p(x) = ELBO + KL(q ‖ p(z|x)) for three q"""
    standins = {"the prior": (0.0, 1.0), "off the mark": (0.45, 0.35), "near a mode": (1.05, 0.27)}
    loc, scale = torch.tensor(list(standins.values()), dtype=torch.float64).T[..., None]  # (three, 1) each
    q = DiagonalNormal(loc, scale)
    vae = VAE(toys.Known(toys.Curve(tilt=0.3)), [Level(Isotropic(1).double(), toys.Given(q), 1)], toys.Noisy(0.5))
    x = torch.tensor([1.2, 0.5], dtype=torch.float64).expand(len(loc), 1, 1, 2)
    end = torch.tensor([4.0], dtype=torch.float64)
    found = gridded(vae, x, torch.zeros(len(loc), dtype=torch.int64), -end, end)
    z = found.p.axes[0, 0]
    densities = q.log_prob(z[:, None, None]).exp().T  # (three, points)
    values = (found.log_p - found.kl).tolist()
    candidates = [Candidate(*each) for each in zip(standins, densities, values, strict=True)]
    return figures.bounds(z, found.p.density[0], candidates, found.log_p[0].item())


def reparameterisation() -> Figure:
    """ε ↦ z for the three families of posteriors"""
    noise = torch.randn(SHOWN, 2)
    shade = torch.atan2(noise[:, 1], noise[:, 0]) / (2 * math.pi) + 0.5
    loc, scale = torch.tensor([1.5, 1.0]), torch.tensor([1.2, 0.5])
    families: dict[str, Normals] = {
        "what is drawn: ε": DiagonalNormal(torch.zeros(2), torch.ones(2)),
        "diagonal: z = μ + σ ⊙ ε": DiagonalNormal(loc, scale),
        "tied: z = μ + σ ⊙ (F ε)": TiedNormal(loc, scale, normalize(Correlated(2)().scale_tril, dim=-1)),
        "full: z = μ + L ε": FullNormal(loc, torch.tensor([[0.8, 0.0], [-0.75, 0.45]])),
    }
    row = [
        Plane(title, [("2 σ", ellipse(q.mean, q.covariance_matrix, 2))], from_noise(q, noise), shade)
        for title, q in families.items()
    ]
    return figures.planes([row], [("first dimension", "second dimension")], "turbo")


def gradients() -> Figure:
    """The variance of two gradients of the same loss by the number of dimensions"""
    scale, at = 0.5, (1, 2, 5, 10, 20, 50, 100)
    found = [toys.gradients(n, scale, draws=GRADIENTS) for n in at]
    n = torch.logspace(0, 2, 100)
    score = Checked("score function", n, scale**2 * (n + 2) * (n + 4) / 4, at, [each.score.var() for each in found])
    pathwise = Checked("reparameterised", n, torch.full_like(n, scale**2), at, [each.pathwise.var() for each in found])
    names = "latent dimensions", "variance of one draw's gradient"
    return figures.checked([score, pathwise], names, ("log", "log"))


def kl() -> Figure:
    """The KL's formulas against means over samples"""
    loc = torch.tensor([0.8, -1.1], dtype=torch.float64)
    diagonal = DiagonalNormal(loc, torch.tensor([0.3, 0.6], dtype=torch.float64))
    full = FullNormal(loc, torch.tensor([[0.3, 0.0], [0.4, 0.5]], dtype=torch.float64))
    pairs: dict[str, tuple[Normals, Normals]] = {
        "diagonal q, prior N(0, I)": (diagonal, Isotropic(2).double()()),
        "full q, prior N(0, Σ)": (full, Correlated(2).double()()),
    }
    panels = []
    for title, (q, p) in pairs.items():
        exact = distributions.kl(q, p, loc).item()
        means = []
        for count in COUNTS:
            z = q.sample(torch.Size([count, REPETITIONS]))
            means.append((q.log_prob(z) - p.log_prob(z)).mean(0))
        estimates = {"mean of log q(z) − log p(z)": torch.stack(means)}
        panels.append(Estimates(f"{title}: {exact:.3f} nats", estimates, exact, (exact - 3, exact + 3)))
    return figures.convergence(panels, COUNTS, "formula", ("draws of z", "KL(q ‖ p), nats"))


def coordinates() -> Figure:
    """The correlated prior and three posteriors, and the same where the prior is N(0, I)"""
    prior = Correlated(2).double()()
    loc = torch.tensor([[-1.1, -0.9], [0.9, -0.1], [0.1, 0.9]], dtype=torch.float64)
    scale = torch.tensor([[0.35, 0.12], [0.14, 0.3], [0.3, 0.22]], dtype=torch.float64)
    free = torch.tensor([[[0.3, 0.0], [-0.1, 0.12]], [[0.12, 0.0], [0.15, 0.2]], [[0.3, 0.0], [0.05, 0.2]]]).double()
    families: dict[str, Normals] = {
        "diagonal": DiagonalNormal(loc, scale),
        "tied": TiedNormal(loc, scale, normalize(prior.scale_tril, dim=-1)),
        "full": FullNormal(loc, free),
    }

    def plane(title: str, q: Normals, a: Tensor) -> Plane:
        """Prior and posteriors of a z."""
        round_prior = a @ prior.covariance_matrix @ a.T
        lines = [("prior: 1, 2 σ", ellipse(prior.loc, round_prior, sigmas)) for sigmas in (1, 2)]
        each = zip(q.mean @ a.T, a @ q.covariance_matrix @ a.T, strict=True)
        return Plane(title, lines + [("posteriors: 2 σ", ellipse(mean, matrix, 2)) for mean, matrix in each])

    unchanged = torch.eye(2, dtype=torch.float64)
    above = [plane(f"posterior={name}", q, unchanged) for name, q in families.items()]
    below = [plane("the same in z′ = L⁻¹ z", q, prior.scale_tril.inverse()) for q in families.values()]
    return figures.planes([above, below], [("z₀", "z₁"), ("z′₀", "z′₁")])


def true_posterior() -> Figure:
    """The true posterior of three test images beside the encoder's, of a trained run"""
    import vae

    return vae.scene(RUN).draw("true_posterior")


def collapse() -> Figure:
    """What the best linear β-VAE spends on each principal component by β"""
    variances = torch.tensor([8.0, 4.0, 2.0, 1.0], dtype=torch.float64)
    at, fine = torch.logspace(-1, 1, 9).tolist(), torch.logspace(-1, 1, 300).tolist()
    found = torch.stack([toys.linear_optimum(variances, 1.0, beta) for beta in at])
    exact = torch.stack([toys.water_filling(variances, 1.0, beta) for beta in fine])
    series = [Checked(f"λ = {variance:g}", fine, exact[:, i], at, found[:, i]) for i, variance in enumerate(variances)]
    return figures.checked(series, ("β σ²", "kl of the dimension, nats"))


def rotation() -> Figure:
    """Codes that are the true factors, turned: the prior sees no difference"""
    prior, factors = Isotropic(2)(), torch.randn(10_000, 2)
    shade = torch.special.ndtr(factors[:SHOWN, 0])
    circles = [("prior: 1, 2 σ", ellipse(prior.loc, prior.covariance_matrix, sigmas)) for sigmas in (1, 2)]
    row = []
    for degrees in (0, 15, 30, 45):
        cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        z = factors @ torch.tensor([[cos, sin], [-sin, cos]])
        said = f"mean log p(z) {prior.log_prob(z).mean():.2f}".replace("-", "−")
        row.append(Plane(f"turned by {degrees}°: MIG {mig(z, factors):.2f}\n{said}", circles, z[:SHOWN], shade))
    return figures.planes([row], [("z₀", "z₁")])


def two_densities() -> Figure:
    """What the tutorial samples from and what it charges for, and posterior=tied"""
    prior = Correlated(2).double()()
    loc, scale = torch.tensor([0.9, -0.3]).double(), torch.tensor([0.5, 0.3]).double()
    tied = TiedNormal(loc, scale, normalize(prior.scale_tril, dim=-1))
    cases: dict[str, tuple[Normals, Normals]] = {
        "the tutorial: z = μ + L ε": (FullNormal(loc, prior.scale_tril), DiagonalNormal(loc, scale)),
        "posterior=tied": (tied, tied),
    }
    row = []
    for title, (sampled, charged) in cases.items():
        outlines = {"prior: 2 σ": prior, "sampled from: 2 σ": sampled, "charged for: 2 σ": charged}
        lines = [(name, ellipse(p.mean, p.covariance_matrix, 2)) for name, p in outlines.items()]
        kls = [f"{distributions.kl(q, prior, loc):.2f}" for q in (charged, sampled)]
        title += f"\nKL charged {kls[0]}, of the samples {kls[1]}"
        row.append(Plane(title, lines, sampled.sample(torch.Size([300]))))
    return figures.planes([row], [("z₀", "z₁")])


def pixel() -> Figure:
    """Exact probabilities of the 256 levels of one pixel"""
    level = torch.arange(LEVELS, dtype=torch.float64)
    shown = sorted({*range(0, LEVELS, 5), 1, LEVELS - 1})
    mixtures = {  # weights, middles and scales
        "μ = 90, s = 3": ([1.0], [90.0], [3.0]),
        "μ = 250, s = 5": ([1.0], [250.0], [5.0]),
        "two logistics": ([0.6, 0.4], [30.0, 180.0], [2.0, 6.0]),
    }
    series = []
    for name, mixture in mixtures.items():
        weight, middle, scale = torch.tensor(mixture, dtype=torch.float64)
        # As the network says them: logits, means in [−1, 1], log-scales; of one pixel of one channel.
        numbers = torch.cat([weight.log(), middle / HALF - 1, (scale / HALF).log()])
        p = LogisticMixture(len(weight))(numbers.view(1, -1, 1, 1))
        measured = p.log_prob((level / (LEVELS - 1)).view(-1, 1, 1, 1)).exp()
        series.append(Checked(name, level, toys.rounded_logistics(*mixture, LEVELS), shown, measured[shown]))
    return figures.checked(series, ("level of the pixel", "probability"), ("linear", "linear"))


def two_levels() -> Figure:
    """Gaussians given the level above, whose mixture bends, and a posterior that changes one of them"""
    prior, posterior = Above(toys.Bent()), Beside(toys.Constant([0.9, -0.7, -0.9, -0.5]))
    top = torch.randn(SHOWN, 1)
    z = prior(top).sample()
    at = torch.linspace(-2, 2, 5)[:, None]

    def outlines(name: str, q: DiagonalNormal) -> list[tuple[str, Tensor]]:
        return [(name, ellipse(loc, matrix, 2)) for loc, matrix in zip(q.loc, q.covariance_matrix, strict=True)]

    changed = posterior.q_given(torch.zeros(5, 1), prior(at), at)
    shade = torch.special.ndtr(top[:, 0])
    priors = outlines("p(z₁|z₂): 2 σ", prior(at))
    left = Plane("z₂ from N(0, 1), then z₁", priors, z, shade)
    right = Plane("the same Δμ, Δσ for each", priors + outlines("q(z₁|x, z₂): 2 σ", changed), z, shade)
    return figures.planes([[left, right]], [("first of z₁", "second of z₁")])


def divergences() -> Figure:
    """The Gaussian that each of six divergences chooses for a density of two modes"""
    z = torch.linspace(-5, 5, 801, dtype=torch.float64)
    p = toys.two_modes(z)
    return figures.fits(z, p, [(name, *toys.nearest_normal(z, p, divergence)) for name, divergence in toys.DIVERGENCES])


EVERY: tuple[Callable[[], Figure], ...] = (
    *(importance, elbo, reparameterisation, gradients, kl, coordinates, true_posterior, collapse, rotation),
    *(two_densities, pixel, two_levels, divergences),
)
PICTURES = {each.__name__: each for each in EVERY}  # in the order of the page


def _parser() -> argparse.ArgumentParser:
    parser = programs.described("theory.py", __doc__, EXAMPLES)
    parser.add_argument("pictures", nargs="*", metavar="picture", help=f"of {', '.join(PICTURES)} (all)")
    parser.add_argument("--out", type=Path, default=OUT, help="folder to write to (docs/theory)")
    parser.add_argument("--list", dest="only_list", action="store_true", help="say what there is, and draw nothing")
    return parser


if __name__ == "__main__":
    main()
