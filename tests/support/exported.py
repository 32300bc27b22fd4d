"""Models to be exported, and what their programs are given."""

from typing import Any

import torch

import vae
from vae.model.build import build_model
from vae.model.codes import as_maps

N = 3  # latent dimensions

DENSE = {"_target_": "vae.model.backbones.Dense", "latent_dim": N, "hidden": [8, 4]}

CONV = {"_target_": "vae.model.backbones.Conv", "latent_dim": N, "channels": [4, 6], "hidden": 5}

RESNET = {"_target_": "vae.model.resnet.Resnet", "latent_dim": N, "channels": [4, 6], "depth": 1, "groups": 2}

MIXTURE = {"_target_": "vae.model.priors.Mixture", "latent_dim": N, "components": 4, "covariance": "full"}

VAMP = {"_target_": "vae.model.priors.Vamp", "latent_dim": N, "components": 4, "init": "random"}

CORRELATED = {"_target_": "vae.model.priors.Correlated", "latent_dim": N}

FULL = {"_target_": "vae.model.posteriors.Full", "latent_dim": N}


CODEBOOK = {
    "_target_": "vae.model.codebook.Codebook",
    "latent_dim": N,
    **{"codes": 6, "stages": 1, "decay": 0.99, "commitment": 0.25, "gradient": "straight_through"},
    **{"revive": 0.1, "places": None},
}

FSQ = {"_target_": "vae.model.fsq.FSQ", "latent_dim": N, "levels": [3, 4, 2], "places": None}

SEQUENCE = {"_target_": "vae.model.sequences.Autoregressive", "width": 8, "layers": 2, "heads": 2}

LOGISTIC = {"_target_": "vae.model.discretized.DiscretizedLogistic"}

LOGISTICS = {"_target_": "vae.model.discretized.LogisticMixture", "components": 3}


def flow(kind):
    return {"_target_": "vae.model.priors.Flow", "latent_dim": N, "kind": kind, "layers": 1, "hidden": [4]}


MODELS: dict[str, dict[str, Any]] = {
    "plain": {},
    "gated": {"backbone": DENSE | {"gated": True}},
    "correlated conv": {"backbone": CONV, "prior": CORRELATED},
    "colours": {"shape": (3, 20, 28), "backbone": CONV, "posterior": FULL},
    "conditional": {"conditional": True, "backbone": CONV, "prior": VAMP, "posterior": FULL},
    "residual": {"backbone": RESNET | {"attention": []}},
    "attention": {"shape": (3, 9, 8), "conditional": True, "backbone": RESNET | {"groups": None, "attention": [4]}},
    "tied": {"prior": CORRELATED, "posterior": {"_target_": "vae.model.posteriors.Tied", "latent_dim": N}},
    "learned": {
        "prior": {"_target_": "vae.model.priors.Learned", "latent_dim": N},
        "likelihood": {"_target_": "vae.model.likelihoods.ContinuousBernoulli"},
    },
    "levels": {"likelihood": LOGISTIC},
    "two vectors": {"backbone": DENSE | {"below": [4, 2]}, "prior": MIXTURE, "conditional": True},
    "maps": {"backbone": RESNET | {"attention": [], "gated": True, "below": [[3, 2], [5, 1]]}},
    "colours of levels": {"shape": (3, 8, 8), "backbone": CONV, "likelihood": LOGISTICS},
    "mixture": {"prior": MIXTURE},
    "diagonal mixture": {"prior": MIXTURE | {"covariance": "diagonal"}, "conditional": True},
    "vamp": {"prior": VAMP},
    "nsf": {"prior": flow("nsf")},
    "maf": {"prior": flow("maf")},
}

CODED: dict[str, dict[str, Any]] = {
    "codes": {"backbone": CONV, "posterior": CODEBOOK, "prior": {"_target_": "vae.model.sequences.Uniform"}},
    "residual codes": {"conditional": True, "posterior": CODEBOOK | {"stages": 2}, "prior": SEQUENCE},
    "lattice": {"backbone": CONV, "posterior": FSQ, "prior": SEQUENCE},
}


def a_model(shape=(1, 5, 7), **changed):
    config = {
        "latent_dim": N,
        "conditional": False,
        "data": {},
        "backbone": DENSE,
        "prior": {"_target_": "vae.model.priors.Isotropic", "latent_dim": N},
        "posterior": {"_target_": "vae.model.posteriors.Diagonal", "latent_dim": N},
        "likelihood": {"_target_": "vae.model.likelihoods.Bernoulli"},
    } | changed
    model = build_model(config, shape, 3)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.2 * torch.randn_like(weight))  # no factor is I, no weights are equal
    return vae.Trained(model, {"config": config, "shape": list(shape), "data": "insects", "classes": ["a", "b", "c"]})


def inputs(model, n):
    """Of all programs, and the labels for the model itself."""
    labels = torch.arange(n) % 3 if model.conditional else None
    made = {"images": torch.rand(n, *model.shape), "z": torch.randn(n, model.vae.numbers)}
    made |= {"noise": torch.randn(n, model.vae.numbers), "choice": torch.linspace(0, 0.999, n)}
    if model.coding:
        maps = as_maps(
            torch.randint(model.coding.codes, (n, model.coding.places, model.coding.stages)), model.coding.grid
        )
        made["codes"] = maps
    return made | ({} if labels is None else {"labels": labels}), labels
