"""The typed schemas behind the YAMLs under conf/: one for each class, with the ranges of its values. Imports no torch.

Hydra refuses wrong types and unknown keys by them when it composes; `vae.settings.config.check` makes objects of them,
which refuse wrong values.
"""

# ruff: noqa: RUF009 (what stands behind a key is a dataclasses.field with its rule)

from __future__ import annotations

import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig

from vae.settings.annealing import KINDS, check_annealing
from vae.settings.covariance import check_covariance

PICTURES = (
    *("manifold", "clusters", "pairs", "covariance", "activity"),
    *("reconstructions", "samples", "interpolation", "traversal", "losses"),
)

METRICS = (
    *("likelihood", "gap", "aggregate", "geometry", "structure"),
    *("reconstruction", "samples", "disentanglement", "anomaly"),
)

# More than anybody needs, and little enough for 32 bits. What fits into memory is for the machine to say.
MANY = 1_000_000
IMAGES = 1_000_000_000  # of a data set
LARGEST = 1e30  # of floats: products with it stay in single precision, which ends at 3.4e38

VisibleGPUs = Callable[[], list[str]]


# Rules ----------------------------------------------------------------------------------------------------------------


class Rule(NamedTuple):
    """What a key's value must be."""

    allows: Callable[[Any], bool]
    words: str


def require(ok: bool, key: str, value: object, allowed: str) -> None:
    """Refuse a value in one line that names the key, the value and what is allowed."""
    if not ok:
        raise ValueError(f"{key}={value}: must be {allowed}")


def ruled(allows: Callable[[Any], bool], words: str) -> Any:
    """A key with a rule."""
    return field(default=MISSING, metadata={"rule": Rule(allows, words)})


def optional(key: Any) -> Any:
    """The same key, which may also be null and is so where a YAML does not say."""
    rule: Rule = key.metadata["rule"]
    allows = lambda value: value is None or rule.allows(value)  # noqa: E731
    return field(default=None, metadata={"rule": Rule(allows, f"null or {rule.words}")})


def integer(low: int, high: int) -> Any:
    """A key for an integer in a range, both ends included."""
    return ruled(lambda value: _is_integer(value, low, high), f"an integer from {low} to {high}")


def listed(least: int, most: int, allows: Callable[[Any], bool], words: str) -> Any:
    """A key for a list of so many entries, each of which is allowed."""
    return ruled(
        lambda value: isinstance(value, list) and least <= len(value) <= most and all(map(allows, value)), words
    )


def widths(most: int, high: int) -> Any:
    """A key for the widths of up to `most` layers."""
    return listed(1, most, lambda each: _is_integer(each, 1, high), f"a list of 1 to {most} integers from 1 to {high}")


def number(low: float) -> Any:
    """A key for a number of at least `low`."""
    return ruled(lambda value: is_number(value) and low <= value <= LARGEST, f"a number from {low:g} to {LARGEST:g}")


def positive() -> Any:
    """A key for a number above 0."""
    return ruled(is_positive, POSITIVE)


def fraction() -> Any:
    """A key for a share that leaves something."""
    return ruled(lambda value: is_number(value) and 0 < value < 1, "between 0 and 1, both excluded")


def word(*allowed: str) -> Any:
    """A key for one of some words."""
    return ruled(lambda value: value in allowed, f"one of {', '.join(allowed)}")


def is_number(value: Any) -> bool:
    """Whether it is a number, NaN and infinity included; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_positive(value: Any) -> bool:
    """Whether it is a number above 0 that single precision can hold."""
    return is_number(value) and 0 < value <= LARGEST


POSITIVE = f"a number above 0, at most {LARGEST:g}"


def _is_integer(value: Any, low: int, high: int) -> bool:
    return type(value) is int and low <= value <= high


@dataclass
class Schema:
    """What all schemas have in common: `CLASSES` says which classes one is of, as `_target_` names them."""

    GROUP: ClassVar[str] = ""  # empty: of the top level
    CLASSES: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        self.check_rules({each.name: getattr(self, each.name) for each in fields(self)})

    @classmethod
    def check_rules(cls, values: dict[str, Any]) -> None:
        """Refuse the first of these keys' values that its rule does not allow."""
        for each in fields(cls):
            rule = each.metadata.get("rule")
            if rule and each.name in values:
                value = values[each.name]
                require(rule.allows(value), ".".join(filter(None, (cls.GROUP, each.name))), value, rule.words)

    def check_machine(self, gpus: VisibleGPUs) -> None:
        """Refuse what is right in itself, but not on this machine: a file or a device that it does not have."""


# Data -----------------------------------------------------------------------------------------------------------------


@dataclass
class DataSchema(Schema):
    GROUP = "data"
    _target_: str = MISSING
    root: str = MISSING
    batch_size: int = integer(1, MANY)
    val_fraction: float = fraction()
    binarize: str = word("none", "threshold", "dynamic")
    limit: int | None = optional(integer(2, IMAGES))

    def check_machine(self, gpus: VisibleGPUs) -> None:
        folder = expanded("data.root", self.root)
        require(folder.is_dir() or not folder.exists(), "data.root", self.root, "a folder, but it is a file")


def expanded(key: str, path: str) -> Path:
    """A path without ~, as the data sources make it; whether something is there or not can be asked of it."""
    try:
        found = Path(path).expanduser()
        found.exists()
    except (OSError, RuntimeError) as error:  # too long a name, or an unknown user
        why = error.strerror if isinstance(error, OSError) else "there is no such user"
        raise ValueError(f"{key}={path}: must be a path that can be looked at ({why})") from None
    return found


@dataclass
class IdxFilesSchema(DataSchema):
    CLASSES = ("vae.data.idx.IdxFiles", "vae.data.auto.Auto")
    name: str = MISSING
    classes: list[str] = listed(1, 1000, lambda each: isinstance(each, str), "a list of 1 to 1000 names")
    mirrors: list[str] = listed(0, 100, lambda each: isinstance(each, str), "a list of up to 100 addresses")
    digests: dict[str, str] = ruled(lambda value: isinstance(value, dict), "file names, each with its SHA-256")


@dataclass
class StrokesSchema(DataSchema):
    CLASSES = ("vae.data.strokes.Strokes",)
    seed: int = integer(0, 2**32 - 1)
    correlation: Any = MISSING  # a matrix; OmegaConf would refuse integers in a list[list[float]]

    def __post_init__(self) -> None:
        super().__post_init__()
        check_covariance("data.correlation", self.correlation, size=6, unit_diagonal=True)


@dataclass
class ImageFolderSchema(DataSchema):
    CLASSES = ("vae.data.images.ImageFolder",)
    size: list[int] | None = optional(
        listed(2, 2, lambda each: _is_integer(each, 1, 10_000), "[height, width], two integers from 1 to 10000")
    )
    channels: int = ruled(lambda value: value in (1, 3), "1 or 3")
    test_fraction: float = fraction()

    def check_machine(self, gpus: VisibleGPUs) -> None:
        super().check_machine(gpus)
        folder = expanded("data.root", self.root)
        found = folder.is_dir() and any(folder.iterdir())
        require(found, "data.root", self.root, "a folder of images, but there is no such folder or it is empty")


@dataclass
class FactorFileSchema(DataSchema):
    CLASSES = ("vae.data.factors.FactorFile",)
    file: str = MISSING
    test_fraction: float = fraction()

    def check_machine(self, gpus: VisibleGPUs) -> None:
        super().check_machine(gpus)
        path = expanded("data.root", self.root) / expanded("data.file", self.file)
        allowed = f"an .npz file of images and factors, but there is no file {path}"
        require(path.is_file(), "data.file", self.file, allowed)


# Model ----------------------------------------------------------------------------------------------------------------


@dataclass
class DenseSchema(Schema):
    GROUP = "backbone"
    CLASSES = ("vae.model.backbones.Dense",)
    _target_: str = MISSING
    latent_dim: int = MISSING
    hidden: list[int] = widths(100, MANY)
    gated: bool = MISSING


@dataclass
class ConvSchema(Schema):
    GROUP = "backbone"
    CLASSES = ("vae.model.backbones.Conv",)
    _target_: str = MISSING
    latent_dim: int = MISSING
    channels: list[int] = widths(20, 100_000)
    hidden: int = integer(1, MANY)


@dataclass
class PriorSchema(Schema):
    """Of every prior that needs nothing but the number of latent dimensions."""

    GROUP = "prior"
    CLASSES: ClassVar[tuple[str, ...]] = ("vae.model.priors.Isotropic", "vae.model.priors.Learned")
    _target_: str = MISSING
    latent_dim: int = MISSING


@dataclass
class CorrelatedSchema(PriorSchema):
    CLASSES = ("vae.model.priors.Correlated",)
    covariance: Any = None  # null or a matrix

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.covariance is not None:
            check_covariance("prior.covariance", self.covariance, size=self.latent_dim)


@dataclass
class MixtureSchema(PriorSchema):
    CLASSES = ("vae.model.priors.Mixture",)
    components: int = integer(1, 100_000)
    covariance: str = word("diagonal", "full")


@dataclass
class VampSchema(PriorSchema):
    CLASSES = ("vae.model.priors.Vamp",)
    components: int = integer(1, 100_000)
    init: str = word("images", "random")


@dataclass
class FlowSchema(PriorSchema):
    CLASSES = ("vae.model.priors.Flow",)
    kind: str = word("nsf", "maf")
    layers: int = integer(0, 100)
    hidden: list[int] = widths(100, MANY)


@dataclass
class PosteriorSchema(Schema):
    GROUP = "posterior"
    CLASSES = ("vae.model.posteriors.Diagonal", "vae.model.posteriors.Tied", "vae.model.posteriors.Full")
    _target_: str = MISSING
    latent_dim: int = MISSING


@dataclass
class BernoulliSchema(Schema):
    GROUP = "likelihood"
    CLASSES = ("vae.model.likelihoods.Bernoulli", "vae.model.likelihoods.ContinuousBernoulli")
    _target_: str = MISSING


@dataclass
class GaussianSchema(Schema):
    GROUP = "likelihood"
    CLASSES = ("vae.model.likelihoods.Gaussian",)
    _target_: str = MISSING
    sigma: Any = ruled(
        lambda value: is_positive(value) or value in ("learned", "optimal"),
        f"{POSITIVE}, or one of the words learned, optimal",
    )


# Training -------------------------------------------------------------------------------------------------------------


@dataclass
class ObjectiveSchema(Schema):
    GROUP = "objective"
    CLASSES = ("vae.model.objectives.Autoencoder",)
    _target_: str = MISSING


@dataclass
class ELBOSchema(ObjectiveSchema):
    CLASSES = ("vae.model.objectives.ELBO",)
    beta: float = MISSING
    annealing: str = word(*KINDS)
    warmup: float = number(0)
    cycles: int = integer(1, MANY)
    free_bits: float = number(0)
    free_bits_per: str = word("dimension", "total")
    capacity: float | None = optional(number(0))

    def __post_init__(self) -> None:
        super().__post_init__()
        check_annealing(self.annealing, self.warmup)
        free = self.capacity is None or not self.free_bits
        require(free, "objective.free_bits", self.free_bits, "0 with objective.capacity, which charges every nat")


@dataclass
class IWAESchema(ObjectiveSchema):
    CLASSES = ("vae.model.objectives.IWAE",)
    samples: int = integer(1, 100_000)
    dreg: bool = MISSING


@dataclass
class TCSchema(ObjectiveSchema):
    CLASSES = ("vae.model.objectives.TC",)
    beta: float = MISSING


@dataclass
class MMDSchema(ObjectiveSchema):
    CLASSES = ("vae.model.objectives.MMD",)
    alpha: float = ruled(
        lambda value: is_number(value) and -LARGEST <= value <= 1,
        f"a number from {-LARGEST:g} to 1, which leaves the KL out",
    )
    weight: float = ruled(lambda value: is_number(value) and value <= LARGEST, f"a number of at most {LARGEST:g}")

    def __post_init__(self) -> None:
        super().__post_init__()
        ok = self.alpha + self.weight >= 1
        require(ok, "objective.weight", self.weight, f"at least 1 − objective.alpha = {1 - self.alpha:g}")


@dataclass
class DIPSchema(ObjectiveSchema):
    CLASSES = ("vae.model.objectives.DIP",)
    beta: float = MISSING
    kind: int = ruled(lambda value: value in (1, 2), "1 (the posterior means) or 2 (the aggregate)")
    off_diagonal: float = number(0)
    diagonal: float = number(0)


@dataclass
class AdamSchema(Schema):
    GROUP = "optimizer"
    CLASSES = ("torch.optim.Adam", "torch.optim.AdamW")
    _target_: str = MISSING
    _partial_: bool = True
    lr: float = positive()
    betas: list[float] = listed(2, 2, lambda each: is_number(each) and 0 <= each < 1, "two numbers in [0, 1)")
    weight_decay: float = number(0)
    fused: bool = MISSING


@dataclass
class SchedulerSchema(Schema):
    GROUP = "scheduler"
    CLASSES = tuple(f"vae.training.schedulers.{name}" for name in ("constant", "cosine", "one_cycle", "stages"))
    _target_: str = MISSING
    _partial_: bool = True
    warmup: float = ruled(lambda value: is_number(value) and 0 <= value < 1, "a fraction of the training in [0, 1)")


@dataclass
class TrainerSchema(Schema):
    GROUP = "trainer"
    CLASSES = ("pytorch_lightning.Trainer",)
    _target_: str = MISSING
    max_epochs: int = MISSING
    accelerator: str = word("auto", "cpu", "gpu", "cuda", "mps")
    # The loader hands every batch to one device.
    devices: Any = ruled(
        lambda value: _is_integer(value, 1, 1) or (_are_indices(value) and len(value) == 1),
        "1, or [index] for another GPU than the first; trainer=ddp takes several",
    )
    precision: str = word("32-true", "64-true", "16-mixed", "bf16-mixed")
    gradient_clip_val: float | None = optional(positive())
    log_every_n_steps: int = integer(1, MANY)

    def check_machine(self, gpus: VisibleGPUs) -> None:
        if sys.platform == "darwin" and platform.machine() == "arm64":
            return  # no other GPU than Apple's, which PyTorch knows best
        require(
            self.accelerator != "mps", "trainer.accelerator", self.accelerator, "auto or cpu: Apple's GPUs are not here"
        )
        if self.accelerator == "auto" and self.devices in (1, "auto") and "16" not in self.precision:
            return  # right on every machine; to look for GPUs would take a while
        count = 0 if self.accelerator == "cpu" else len(gpus())
        if not count:
            asks_for_none = self.accelerator in ("auto", "cpu")
            require(asks_for_none, "trainer.accelerator", self.accelerator, "auto or cpu, as there is no GPU")
            is_count = not isinstance(self.devices, list)
            require(is_count, "trainer.devices", self.devices, "a number of processes on a CPU, which has no indices")
            allowed = "32-true or 64-true on a CPU, where 16 bits are slow"
            require("16" not in self.precision, "trainer.precision", self.precision, allowed)
        elif isinstance(self.devices, list):
            require(max(self.devices) < count, "trainer.devices", self.devices, f"indices from 0 to {count - 1}")
        elif self.devices != "auto":
            require(self.devices <= count, "trainer.devices", self.devices, f"at most {count}, the GPUs that there are")


@dataclass
class DDPSchema(TrainerSchema):
    devices: Any = ruled(
        lambda value: value == "auto" or _is_integer(value, 1, 1024) or _are_indices(value),
        "auto, an integer from 1 to 1024, or a list of different GPUs' indices",
    )
    strategy: str = word("ddp", "ddp_find_unused_parameters_true")


def _are_indices(devices: Any) -> bool:
    if not isinstance(devices, list) or not devices:
        return False
    return all(_is_integer(index, 0, 1023) for index in devices) and len({*devices}) == len(devices)


@dataclass
class PicturesSchema(Schema):
    GROUP = "figures"
    CLASSES = ("vae.training.callbacks.pictures.Pictures",)
    _target_: str = MISSING
    every_n_epochs: int | None = optional(integer(1, MANY))
    # A name may stand behind its tag's first part: latent/manifold.
    only: list[str] | None = optional(
        listed(0, 100, lambda each: str(each).rpartition("/")[2] in PICTURES, f"a list of {', '.join(PICTURES)}")
    )
    grid: str = word("whitened", "square", "quantile")
    walk: str = word("axis", "conditional")


@dataclass
class EvaluationSchema(Schema):
    GROUP = "evaluate"
    CLASSES = ("vae.study.evaluate.Evaluation",)
    _target_: str = MISSING
    metrics: list[str] | None = optional(
        listed(0, 100, lambda each: each in METRICS, f"a list of {', '.join(METRICS)}")
    )
    images: int | None = optional(integer(1, IMAGES))
    samples: int = integer(1, MANY)
    method: str = word("importance", "ais")


def group() -> Any:
    """A key for what a YAML of the group of this name says."""
    return ruled(lambda value: isinstance(value, DictConfig), "one of the choices that --help lists")


@dataclass
class Config(Schema):
    """The top level. The groups' own schemas stand behind their YAMLs."""

    latent_dim: int = integer(1, MANY)
    beta: float = number(0)
    epochs: int = integer(1, MANY)
    seed: int = integer(0, 2**32 - 1)
    conditional: bool = MISSING
    report: str = word("best", "last")
    data: Any = group()
    backbone: Any = group()
    prior: Any = group()
    posterior: Any = group()
    likelihood: Any = group()
    objective: Any = group()
    optimizer: Any = group()
    scheduler: Any = group()
    trainer: Any = group()
    figures: Any = group()
    evaluate: Any = group()


SCHEMAS: dict[str, dict[str, type[Schema]]] = {
    "data": {
        "idx_files": IdxFilesSchema,
        "strokes": StrokesSchema,
        "image_folder": ImageFolderSchema,
        "factor_file": FactorFileSchema,
    },
    "backbone": {"dense": DenseSchema, "conv": ConvSchema},
    "prior": {
        "isotropic": PriorSchema,
        "correlated": CorrelatedSchema,
        "learned": PriorSchema,
        "mixture": MixtureSchema,
        "vamp": VampSchema,
        "flow": FlowSchema,
    },
    "posterior": {"diagonal": PosteriorSchema, "tied": PosteriorSchema, "full": PosteriorSchema},
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
