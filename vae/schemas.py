"""The typed schemas behind the YAMLs under conf/: one for each class, with the ranges of its values. Imports no torch.

Hydra refuses wrong types and unknown keys by them when it composes; `__post_init__` refuses wrong values when
`vae.config.check` makes objects of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from vae.annealing import check_annealing
from vae.covariance import check_covariance

PICTURES = (
    *("manifold", "clusters", "pairs", "covariance", "activity"),
    *("reconstructions", "samples", "interpolation", "traversal", "losses"),
)

METRICS = (
    *("likelihood", "gap", "aggregate", "geometry", "structure"),
    *("reconstruction", "samples", "disentanglement", "anomaly"),
)


def require(ok: bool, key: str, value: object, allowed: str) -> None:
    """Refuse a value in one line that names the key, the value and what is allowed."""
    if not ok:
        raise ValueError(f"{key}={value}: must be {allowed}")


def require_one_of(key: str, value: object, allowed: tuple[str, ...]) -> None:
    """Refuse a value that is none of the allowed words."""
    require(value in allowed, key, value, f"one of {', '.join(allowed)}")


def require_widths(key: str, values: list[int]) -> None:
    """Refuse a list of layer widths that is empty or holds anything but positive numbers."""
    require(bool(values) and all(width >= 1 for width in values), key, values, "a list of positive integers")


# Data -----------------------------------------------------------------------------------------------------------------


@dataclass
class DataSchema:
    _target_: str = MISSING
    root: str = MISSING
    batch_size: int = MISSING
    val_fraction: float = MISSING
    binarize: str = MISSING
    limit: int | None = None

    def __post_init__(self) -> None:
        require(self.batch_size >= 1, "data.batch_size", self.batch_size, "a positive integer")
        require(0 < self.val_fraction < 1, "data.val_fraction", self.val_fraction, "between 0 and 1, both excluded")
        require_one_of("data.binarize", self.binarize, ("none", "threshold", "dynamic"))
        require(self.limit is None or self.limit >= 2, "data.limit", self.limit, "null or an integer of at least 2")


@dataclass
class IdxFilesSchema(DataSchema):
    name: str = MISSING
    classes: list[str] = MISSING
    mirrors: list[str] = MISSING
    digests: dict[str, str] = MISSING


@dataclass
class StrokesSchema(DataSchema):
    seed: int = MISSING
    correlation: Any = MISSING  # a matrix; OmegaConf would refuse integers in a list[list[float]]

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.seed >= 0, "data.seed", self.seed, "a non-negative integer")
        check_covariance("data.correlation", self.correlation, size=6, unit_diagonal=True)


@dataclass
class ImageFolderSchema(DataSchema):
    size: list[int] | None = None
    channels: int = MISSING
    test_fraction: float = MISSING

    def __post_init__(self) -> None:
        super().__post_init__()
        good_size = self.size is None or (len(self.size) == 2 and min(self.size) >= 1)
        require(good_size, "data.size", self.size, "null or [height, width], both positive")
        require(self.channels in (1, 3), "data.channels", self.channels, "1 or 3")
        require(0 < self.test_fraction < 1, "data.test_fraction", self.test_fraction, "between 0 and 1, both excluded")


@dataclass
class FactorFileSchema(DataSchema):
    file: str = MISSING
    test_fraction: float = MISSING

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.test_fraction < 1, "data.test_fraction", self.test_fraction, "between 0 and 1, both excluded")


# Model ----------------------------------------------------------------------------------------------------------------


@dataclass
class DenseSchema:
    _target_: str = MISSING
    latent_dim: int = MISSING
    hidden: list[int] = MISSING
    gated: bool = MISSING

    def __post_init__(self) -> None:
        require_widths("backbone.hidden", self.hidden)


@dataclass
class ConvSchema:
    _target_: str = MISSING
    latent_dim: int = MISSING
    channels: list[int] = MISSING
    hidden: int = MISSING

    def __post_init__(self) -> None:
        require_widths("backbone.channels", self.channels)
        require(self.hidden >= 1, "backbone.hidden", self.hidden, "a positive integer")


@dataclass
class LatentSchema:
    """Of every class that needs nothing but the number of latent dimensions."""

    _target_: str = MISSING
    latent_dim: int = MISSING


@dataclass
class CorrelatedSchema(LatentSchema):
    covariance: Any = None  # null or a matrix

    def __post_init__(self) -> None:
        if self.covariance is not None:
            check_covariance("prior.covariance", self.covariance, size=self.latent_dim)


@dataclass
class MixtureSchema(LatentSchema):
    components: int = MISSING
    covariance: str = MISSING

    def __post_init__(self) -> None:
        require(self.components >= 1, "prior.components", self.components, "a positive integer")
        require_one_of("prior.covariance", self.covariance, ("diagonal", "full"))


@dataclass
class VampSchema(LatentSchema):
    components: int = MISSING
    init: str = MISSING

    def __post_init__(self) -> None:
        require(self.components >= 1, "prior.components", self.components, "a positive integer")
        require_one_of("prior.init", self.init, ("images", "random"))


@dataclass
class FlowSchema(LatentSchema):
    kind: str = MISSING
    layers: int = MISSING
    hidden: list[int] = MISSING

    def __post_init__(self) -> None:
        require_one_of("prior.kind", self.kind, ("nsf", "maf"))
        require(self.layers >= 0, "prior.layers", self.layers, "an integer of at least 0")
        require_widths("prior.hidden", self.hidden)


@dataclass
class BernoulliSchema:
    _target_: str = MISSING


@dataclass
class GaussianSchema:
    _target_: str = MISSING
    sigma: Any = MISSING

    def __post_init__(self) -> None:
        is_number = isinstance(self.sigma, (int, float)) and not isinstance(self.sigma, bool)
        ok = 0 < self.sigma < float("inf") if is_number else self.sigma in ("learned", "optimal")
        require(ok, "likelihood.sigma", self.sigma, "a positive number or one of the words learned, optimal")


# Training -------------------------------------------------------------------------------------------------------------


@dataclass
class ObjectiveSchema:
    _target_: str = MISSING


@dataclass
class ELBOSchema(ObjectiveSchema):
    beta: float = MISSING
    annealing: str = MISSING
    warmup: float = MISSING
    cycles: int = MISSING
    free_bits: float = MISSING
    free_bits_per: str = MISSING
    capacity: float | None = None

    def __post_init__(self) -> None:
        check_annealing(self.annealing, self.warmup)
        require(self.cycles >= 1, "objective.cycles", self.cycles, "a positive integer")
        require(0 <= self.free_bits < float("inf"), "objective.free_bits", self.free_bits, "a number of at least 0")
        require_one_of("objective.free_bits_per", self.free_bits_per, ("dimension", "total"))
        capacity = self.capacity
        ok = capacity is None or 0 <= capacity < float("inf")
        require(ok, "objective.capacity", capacity, "null or a number of at least 0")
        free = capacity is None or not self.free_bits
        require(free, "objective.free_bits", self.free_bits, "0 with objective.capacity, which charges every nat")


@dataclass
class IWAESchema(ObjectiveSchema):
    samples: int = MISSING
    dreg: bool = MISSING

    def __post_init__(self) -> None:
        require(self.samples >= 1, "objective.samples", self.samples, "a positive integer")


@dataclass
class TCSchema(ObjectiveSchema):
    beta: float = MISSING


@dataclass
class MMDSchema(ObjectiveSchema):
    alpha: float = MISSING
    weight: float = MISSING

    def __post_init__(self) -> None:
        require(self.alpha <= 1, "objective.alpha", self.alpha, "at most 1, which leaves the KL out")
        ok = 1 <= self.alpha + self.weight < float("inf")
        require(ok, "objective.weight", self.weight, f"at least 1 − objective.alpha = {1 - self.alpha:g}")


@dataclass
class DIPSchema(ObjectiveSchema):
    beta: float = MISSING
    kind: int = MISSING
    off_diagonal: float = MISSING
    diagonal: float = MISSING

    def __post_init__(self) -> None:
        require(self.kind in (1, 2), "objective.kind", self.kind, "1 (the posterior means) or 2 (the aggregate)")
        for key, value in (("off_diagonal", self.off_diagonal), ("diagonal", self.diagonal)):
            require(0 <= value < float("inf"), f"objective.{key}", value, "a number of at least 0")


@dataclass
class AdamSchema:
    _target_: str = MISSING
    _partial_: bool = True
    lr: float = MISSING
    betas: list[float] = MISSING
    weight_decay: float = MISSING
    fused: bool = MISSING

    def __post_init__(self) -> None:
        require(0 < self.lr < float("inf"), "optimizer.lr", self.lr, "a positive number")
        good_betas = len(self.betas) == 2 and all(0 <= beta < 1 for beta in self.betas)
        require(good_betas, "optimizer.betas", self.betas, "two numbers in [0, 1)")
        require(self.weight_decay >= 0, "optimizer.weight_decay", self.weight_decay, "a number of at least 0")


@dataclass
class SchedulerSchema:
    _target_: str = MISSING
    _partial_: bool = True
    warmup: float = 0.0

    def __post_init__(self) -> None:
        require(0 <= self.warmup < 1, "scheduler.warmup", self.warmup, "a fraction of the training in [0, 1)")


@dataclass
class TrainerSchema:
    _target_: str = MISSING
    max_epochs: int = MISSING
    accelerator: str = MISSING
    devices: Any = MISSING
    precision: str = MISSING
    gradient_clip_val: float | None = None
    log_every_n_steps: int = MISSING

    def __post_init__(self) -> None:
        require_one_of("trainer.accelerator", self.accelerator, ("auto", "cpu", "gpu", "cuda", "mps", "tpu"))
        require_one_of("trainer.precision", self.precision, ("32-true", "64-true", "16-mixed", "bf16-mixed"))
        self.require_devices()
        require(self.log_every_n_steps >= 1, "trainer.log_every_n_steps", self.log_every_n_steps, "a positive integer")
        clip = self.gradient_clip_val
        require(clip is None or clip > 0, "trainer.gradient_clip_val", clip, "null or a positive number")

    def require_devices(self) -> None:
        # The loader hands every batch to one device.
        allowed = "1, or [index] for another GPU than the first; trainer=ddp takes several"
        is_one = self.devices == 1 or (_are_indices(self.devices) and len(self.devices) == 1)
        require(is_one, "trainer.devices", self.devices, allowed)


@dataclass
class DDPSchema(TrainerSchema):
    strategy: str = MISSING

    def __post_init__(self) -> None:
        super().__post_init__()
        require_one_of("trainer.strategy", self.strategy, ("ddp", "ddp_find_unused_parameters_true"))

    def require_devices(self) -> None:
        is_count = type(self.devices) is int and self.devices >= 1
        ok = self.devices == "auto" or is_count or _are_indices(self.devices)
        require(ok, "trainer.devices", self.devices, "auto, a positive integer, or a list of different GPUs' indices")


def _are_indices(devices: Any) -> bool:
    return isinstance(devices, list) and {type(index) for index in devices} == {int} and len({*devices}) == len(devices)


@dataclass
class PicturesSchema:
    _target_: str = MISSING
    every_n_epochs: int | None = None
    only: list[str] | None = None
    grid: str = MISSING
    walk: str = MISSING

    def __post_init__(self) -> None:
        every = self.every_n_epochs
        require(every is None or every >= 1, "figures.every_n_epochs", every, "null or a positive integer")
        for name in self.only or []:
            require_one_of("figures.only", name.rpartition("/")[2], PICTURES)
        require_one_of("figures.grid", self.grid, ("whitened", "square", "quantile"))
        require_one_of("figures.walk", self.walk, ("axis", "conditional"))


@dataclass
class EvaluationSchema:
    _target_: str = MISSING
    metrics: list[str] | None = None
    images: int | None = None
    samples: int = MISSING
    method: str = MISSING

    def __post_init__(self) -> None:
        require_one_of("evaluate.method", self.method, ("importance", "ais"))
        for name in self.metrics or []:
            require_one_of("evaluate.metrics", name, METRICS)
        require(self.images is None or self.images >= 1, "evaluate.images", self.images, "null or a positive integer")
        require(self.samples >= 1, "evaluate.samples", self.samples, "a positive integer")


@dataclass
class Config:
    """The top level. The groups' own schemas stand behind their YAMLs."""

    latent_dim: int = MISSING
    beta: float = MISSING
    epochs: int = MISSING
    seed: int = MISSING
    conditional: bool = MISSING
    report: str = MISSING
    data: Any = MISSING
    backbone: Any = MISSING
    prior: Any = MISSING
    posterior: Any = MISSING
    likelihood: Any = MISSING
    objective: Any = MISSING
    optimizer: Any = MISSING
    scheduler: Any = MISSING
    trainer: Any = MISSING
    figures: Any = MISSING
    evaluate: Any = MISSING

    def __post_init__(self) -> None:
        require(self.latent_dim >= 1, "latent_dim", self.latent_dim, "a positive integer")
        require(0 <= self.beta < float("inf"), "beta", self.beta, "a number of at least 0")
        require(self.epochs >= 1, "epochs", self.epochs, "a positive integer")
        require(0 <= self.seed < 2**32, "seed", self.seed, "an integer from 0 to 4294967295")
        require_one_of("report", self.report, ("best", "last"))


SCHEMAS: dict[str, dict[str, type[Any]]] = {
    "data": {
        "idx_files": IdxFilesSchema,
        "strokes": StrokesSchema,
        "image_folder": ImageFolderSchema,
        "factor_file": FactorFileSchema,
    },
    "backbone": {"dense": DenseSchema, "conv": ConvSchema},
    "prior": {
        "isotropic": LatentSchema,
        "correlated": CorrelatedSchema,
        "learned": LatentSchema,
        "mixture": MixtureSchema,
        "vamp": VampSchema,
        "flow": FlowSchema,
    },
    "posterior": {"diagonal": LatentSchema, "tied": LatentSchema, "full": LatentSchema},
    "likelihood": {
        "bernoulli": BernoulliSchema,
        "gaussian": GaussianSchema,
        "continuous_bernoulli": BernoulliSchema,
    },
    "objective": {
        "elbo": ELBOSchema,
        "iwae": IWAESchema,
        "tc": TCSchema,
        "mmd": MMDSchema,
        "dip": DIPSchema,
        "autoencoder": ObjectiveSchema,
    },
    "optimizer": {"adam": AdamSchema},
    "scheduler": {"scheduler": SchedulerSchema},
    "trainer": {"trainer": TrainerSchema, "ddp": DDPSchema},
    "figures": {"pictures": PicturesSchema},
    "evaluate": {"evaluation": EvaluationSchema},
}


def register() -> None:
    """Put the schemas where the YAMLs' defaults lists find them: `/schema/<group>/<name>`."""
    store = ConfigStore.instance()
    store.store(group="schema", name="config", node=Config)
    for group, schemas in SCHEMAS.items():
        for name, schema in schemas.items():
            store.store(group=f"schema/{group}", name=name, node=schema)


# The groups' copies of top-level values.
REPEATED = {
    "backbone.latent_dim": "latent_dim",
    "prior.latent_dim": "latent_dim",
    "posterior.latent_dim": "latent_dim",
    "objective.beta": "beta",
    "trainer.max_epochs": "epochs",
}
