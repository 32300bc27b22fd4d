"""The values that every key may have, one line a class. Imports no torch.

A YAML under conf/ has a class's keys and defaults, its constructor says what they mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vae.settings.annealing import KINDS
from vae.settings.rules import (
    LARGEST,
    POSITIVE,
    Rule,
    anything,
    below_one,
    boolean,
    fraction,
    integer,
    is_integer,
    is_number,
    is_positive,
    keyed,
    listed,
    number,
    one_of,
    optional,
    positive,
    text,
    texts_by_name,
    widths,
    word,
)

# More than anybody needs, and little enough for 32 bits. What fits into memory is for the machine to say.
MANY = 1_000_000
IMAGES = 1_000_000_000  # of a data set

# Names from vae.study, which imports torch; a test compares them.
PICTURES = (
    *("latent/manifold", "latent/clusters", "latent/pairs", "latent/covariance", "latent/activity"),
    *("latent/true_posterior", "latent/codebook", "latent/usage", "images/codes"),
    *("images/reconstructions", "images/samples", "images/interpolation"),
    *("images/traversal", "images/redrawn", "images/upper", "images/temperature"),
    *("curves/losses", "curves/levels"),
)
METRICS = (
    *("likelihood", "gap", "aggregate", "geometry", "structure"),
    *("reconstruction", "samples", "disentanglement", "anomaly"),
)
METHODS = {"importance": 1000, "ais": 300}  # to the likelihood, and of how many images in a minute or a few

Ranges = Mapping[str, Rule]  # by key

_LATENTS, _EPOCHS, _SEED, _BETA = integer(1, MANY), integer(1, MANY), integer(0, 2**32 - 1), number(0)
TOP: Ranges = {
    "latent_dim": _LATENTS,
    "beta": _BETA,
    "epochs": _EPOCHS,
    "seed": _SEED,
    "conditional": boolean,
    "ema": below_one("a decay in [0, 1), 0 for no average"),
    "parent": optional(text),
    "report": word("best", "last"),
}

# The groups' copies of top-level values.
REPEATED = {
    "backbone.latent_dim": "latent_dim",
    "prior.latent_dim": "latent_dim",
    "posterior.latent_dim": "latent_dim",
    "objective.beta": "beta",
    "trainer.max_epochs": "epochs",
}

PARTIAL = ("optimizer", "scheduler")  # groups whose objects lack something until the model is there


def _are_indices(devices: Any) -> bool:
    if not isinstance(devices, list) or not devices:
        return False
    return all(is_integer(index, 0, 1023) for index in devices) and len({*devices}) == len(devices)


_SIGMA = Rule(
    lambda value: is_positive(value) or (isinstance(value, str) and value in ("learned", "optimal")),
    f"{POSITIVE}, or one of the words learned, optimal",
)
_WEIGHT = Rule(
    lambda value: is_number(value) and value <= LARGEST,
    f"a number of at most {LARGEST:g}",
    number().convert,
)
_DEVICE = Rule(  # the loader hands every batch to one
    lambda value: is_integer(value, 1, 1) or (_are_indices(value) and len(value) == 1),
    "1, or [index] for another GPU than the first; trainer=ddp takes several",
)
_DEVICES = Rule(
    lambda value: value == "auto" or is_integer(value, 1, 1024) or _are_indices(value),
    "auto, an integer from 1 to 1024, or a list of different GPUs' indices",
)
_SIDE = integer(1, 10_000)  # in pixels
_SIZE = listed(2, 2, _SIDE, "[height, width], two integers from 1 to 10000")
_CROP = Rule(lambda each: _SIDE.allows(each) or _SIZE.allows(each), f"{_SIDE.words}, or {_SIZE.words}", _SIDE.convert)
_BETAS = listed(2, 2, below_one(""), "a list of two numbers in [0, 1)")
_NAMES = [tag.partition("/")[2] for tag in PICTURES]
_PICTURES = listed(0, 100, word(*_NAMES, *PICTURES), f"a list of {', '.join(_NAMES)}")
_GROUPS = optional(integer(1, 100_000))
_SIDES = listed(0, 20, integer(1, 10_000), "a list of up to 20 integers from 1 to 10000")
_LEVEL = listed(2, 2, integer(1, 100_000), "")
_BELOW = listed(0, 50, _LEVEL, "a list of up to 50 pairs [side, channels] of integers from 1 to 100000")
_FEW, _FEW_EACH = integer(2, 1000), listed(1, 100, integer(2, 1000), "")
_LEVELS = Rule(
    lambda each: _FEW.allows(each) or _FEW_EACH.allows(each), f"{_FEW.words}, or a list of such", _FEW_EACH.convert
)
_METRICS = listed(0, 100, word(*METRICS), f"a list of {', '.join(METRICS)}")

# Of several classes
_LATENT: Ranges = {"latent_dim": _LATENTS}
_MAPS: Ranges = {**_LATENT, "channels": widths(20, 100_000)}
_DATA: Ranges = {
    "root": text,
    "batch_size": integer(1, MANY),
    "val_fraction": fraction(),
    "binarize": word("none", "threshold", "dynamic"),
    "limit": optional(integer(2, IMAGES)),
    "flip": boolean,
}
_PUBLISHED: Ranges = {
    **_DATA,
    "name": text,
    "classes": listed(1, 1000, text, "a list of 1 to 1000 names"),
    "mirrors": listed(0, 100, text, "a list of up to 100 addresses"),
    "digests": texts_by_name("file names, each with its SHA-256"),
}
_IMAGES: Ranges = {**_DATA, "size": optional(_SIZE), "crop": optional(_CROP), "channels": one_of("1 or 3", 1, 3)}
_FILE: Ranges = {**_DATA, "file": text, "test_fraction": fraction()}
_CODED: Ranges = {**_LATENT, "places": optional(integer(1, MANY))}
_MIXED: Ranges = {**_LATENT, "components": integer(1, 100_000)}
_ADAM: Ranges = {"lr": positive(), "betas": _BETAS, "weight_decay": number(0), "fused": boolean}
_CRITIC: Ranges = {"lr": positive(), "betas": _BETAS, "updates": integer(1, 1000)}
_CRITIC_OF_VECTORS = keyed({"hidden": widths(100, MANY), **_CRITIC})
_CRITIC_OF_IMAGES = keyed({"channels": widths(20, 100_000), "r1": number(0), **_CRITIC})
_SCHEDULER: Ranges = {"warmup": below_one("a fraction of the training in [0, 1)")}
TRAINER: Ranges = {
    "max_epochs": _EPOCHS,
    "accelerator": word("auto", "cpu", "gpu", "cuda", "mps"),
    "devices": _DEVICE,
    "precision": word("32-true", "64-true", "16-mixed", "bf16-mixed"),
    "gradient_clip_val": optional(positive()),
    "log_every_n_steps": integer(1, MANY),
}
TRAINER_OF_PROCESSES: Ranges = {  # of the same class, where it has a strategy
    **TRAINER,
    "devices": _DEVICES,
    "strategy": word("ddp", "ddp_find_unused_parameters_true"),
}

# By group and class. Matrices are looked at in vae.settings.together.
RANGES: Mapping[str, Mapping[str, Ranges]] = {
    "data": {
        "vae.data.idx.IdxFiles": _PUBLISHED,
        "vae.data.auto.Auto": _PUBLISHED,
        "vae.data.cifar.Cifar10": _PUBLISHED,
        "vae.data.strokes.Strokes": {**_DATA, "seed": _SEED, "correlation": anything},
        "vae.data.images.ImageFolder": {**_IMAGES, "test_fraction": fraction()},
        "vae.data.celeba.CelebA": {key: rule for key, rule in _IMAGES.items() if key != "val_fraction"},
        "vae.data.factors.FactorFile": _FILE,
        "vae.data.arrays.ArrayFile": _FILE,
    },
    "backbone": {
        "vae.model.backbones.Dense": {
            **_LATENT,
            "hidden": widths(100, MANY),
            "gated": boolean,
            "below": listed(0, 50, integer(1, MANY), f"a list of up to 50 integers from 1 to {MANY}"),
        },
        "vae.model.backbones.Conv": {**_MAPS, "hidden": integer(1, MANY)},
        "vae.model.resnet.Resnet": {
            **_MAPS,
            "depth": integer(1, 1000),
            "groups": _GROUPS,
            "attention": _SIDES,
            "gated": boolean,
            "below": _BELOW,
        },
    },
    "prior": {
        "vae.model.priors.Isotropic": _LATENT,
        "vae.model.priors.Correlated": {**_LATENT, "covariance": anything},
        "vae.model.priors.Learned": _LATENT,
        "vae.model.priors.Mixture": {**_MIXED, "covariance": word("diagonal", "full")},
        "vae.model.priors.Vamp": {**_MIXED, "init": word("images", "random")},
        "vae.model.sequences.Uniform": {},
        "vae.model.sequences.Autoregressive": {
            "width": integer(1, 100_000),
            "layers": integer(0, 1000),
            "heads": integer(1, 1000),
        },
        "vae.model.priors.Flow": {
            **_LATENT,
            "kind": word("nsf", "maf"),
            "layers": integer(0, 100),
            "hidden": widths(100, MANY),
        },
    },
    "posterior": {
        "vae.model.posteriors.Diagonal": _LATENT,
        "vae.model.posteriors.Tied": _LATENT,
        "vae.model.posteriors.Full": _LATENT,
        "vae.model.codebook.Codebook": {
            **_CODED,
            "codes": integer(1, 100_000),
            "stages": integer(1, 100),
            "decay": optional(below_one("a decay in [0, 1)")),
            "commitment": number(0),
            "gradient": word("straight_through", "rotation"),
            "revive": below_one("a number in [0, 1), in units of an even use"),
        },
        "vae.model.fsq.FSQ": {**_CODED, "levels": _LEVELS},
        "vae.model.gumbel.Gumbel": {**_CODED, "codes": integer(1, 100_000), "temperature": positive()},
    },
    "likelihood": {
        "vae.model.likelihoods.Bernoulli": {},
        "vae.model.likelihoods.ContinuousBernoulli": {},
        "vae.model.likelihoods.Gaussian": {"sigma": _SIGMA},
        "vae.model.discretized.DiscretizedLogistic": {},
        "vae.model.discretized.LogisticMixture": {"components": integer(1, 1000)},
    },
    "objective": {
        "vae.model.objectives.ELBO": {
            "beta": _BETA,
            "annealing": word(*KINDS),
            "warmup": number(0),
            "cycles": integer(1, MANY),
            "free_bits": number(0),
            "free_bits_per": word("dimension", "level", "total"),
            "balance": boolean,
            "capacity": optional(number(0)),
        },
        "vae.model.bounds.IWAE": {"samples": integer(1, 100_000), "dreg": boolean},
        "vae.model.batchwise.TC": {"beta": _BETA},
        "vae.model.batchwise.MMD": {"alpha": number(high=1, why=", which leaves the KL out"), "weight": _WEIGHT},
        "vae.model.batchwise.DIP": {
            "beta": _BETA,
            "kind": one_of("1 (the posterior means) or 2 (the aggregate)", 1, 2),
            "off_diagonal": number(0),
            "diagonal": number(0),
        },
        "vae.model.objectives.Autoencoder": {},
        "vae.model.distillation.Distillation": {"beta": _BETA, "teacher": text, "weight": number(0)},
        "vae.model.bounds.Renyi": {"samples": integer(1, 100_000), "alpha": number(-100, 100)},
        "vae.model.transport.Wasserstein": {
            "kind": word("sliced", "sinkhorn"),
            "weight": number(0),
            "directions": integer(1, MANY),
            "epsilon": positive(),
        },
        "vae.model.rae.RAE": {"codes": number(0), "decoder": number(0)},
        "vae.model.adversarial.Factor": {"gamma": number(0), "critic": _CRITIC_OF_VECTORS},
        "vae.model.adversarial.WaeGan": {"weight": number(0), "critic": _CRITIC_OF_VECTORS},
        "vae.model.adversarial.VaeGan": {
            "beta": _BETA,
            "weight": number(0),
            "pixels": number(0),
            "critic": _CRITIC_OF_IMAGES,
        },
    },
    "optimizer": {"torch.optim.Adam": _ADAM, "torch.optim.AdamW": _ADAM},
    "scheduler": {
        "vae.training.schedulers.constant": _SCHEDULER,
        "vae.training.schedulers.cosine": _SCHEDULER,
        "vae.training.schedulers.one_cycle": _SCHEDULER,
        "vae.training.schedulers.stages": _SCHEDULER,
    },
    "trainer": {"pytorch_lightning.Trainer": TRAINER},
    "figures": {
        "vae.training.callbacks.pictures.Pictures": {
            "every_n_epochs": optional(integer(1, MANY)),
            "only": optional(_PICTURES),
            "grid": word("whitened", "square", "quantile"),
            "walk": word("axis", "conditional"),
            "film": boolean,
        },
    },
    "evaluate": {
        "vae.study.evaluate.Evaluation": {
            "metrics": optional(_METRICS),
            "images": optional(integer(1, IMAGES)),
            "samples": integer(1, MANY),
            "method": word(*METHODS),
        },
    },
}

GROUPS = (*RANGES, "logger")  # of the configuration
