"""Values that do not go together, though each is allowed by itself. Imports no torch."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from vae.settings.annealing import check_annealing
from vae.settings.covariance import check_covariance
from vae.settings.rules import require

Node = Mapping[str, Any]

NOT_GAUSSIAN = ("vae.model.priors.Mixture", "vae.model.priors.Vamp", "vae.model.priors.Flow")
INDEPENDENT = (  # what they ask the dimensions to be
    "vae.model.batchwise.TC",
    "vae.model.batchwise.DIP",
    "vae.model.adversarial.Factor",
)
AT_MEAN = ("vae.model.objectives.Autoencoder", "vae.model.rae.RAE")  # deterministic objectives
FITTED = ("vae.model.priors.Mixture", "vae.model.priors.Learned")  # priors that can be, to the codes that there are

CODINGS = ("vae.model.codebook.Codebook", "vae.model.fsq.FSQ", "vae.model.gumbel.Gumbel")  # posteriors
OF_MAPS = ("vae.model.backbones.Conv", "vae.model.resnet.Resnet")
OVER_CODES = ("vae.model.sequences.Uniform", "vae.model.sequences.Autoregressive")  # priors

ONE_LEVEL = (
    *INDEPENDENT,
    "vae.model.batchwise.MMD",
    "vae.model.transport.Wasserstein",
    "vae.model.adversarial.WaeGan",
    "vae.model.adversarial.VaeGan",
    "vae.model.rae.RAE",
)


MOST_CODES = 100_000


def is_coded(config: Mapping[str, Any]) -> bool:
    """Whether z is made of codes."""
    return config["posterior"]["_target_"] in CODINGS


def kind(node: Node) -> str:
    """What a group's choice is called in words: `ContinuousBernoulli` is "continuous bernoulli"."""
    return re.sub("(?<=[a-z])(?=[A-Z])", " ", str(node["_target_"]).rpartition(".")[2]).lower()


def choice(node: Node) -> str:
    """The same as it is typed: `WaeGan` is wae_gan."""
    return kind(node).replace(" ", "_")


# One class's values ---------------------------------------------------------------------------------------------------


def check_class(node: Node) -> None:
    """Refuse values of a class of this program that do not go with each other; each is in its range."""
    check = _OF_A_CLASS.get(node["_target_"])
    if check:
        check(node)


def _check_strokes(node: Node) -> None:
    check_covariance("data.correlation", node["correlation"], size=6, unit_diagonal=True)


def _check_resnet(node: Node) -> None:
    groups = node["groups"]
    whole = groups is None or not any(channels % groups for channels in node["channels"])
    require(whole, "backbone.channels", node["channels"], f"multiples of backbone.groups = {groups}")


def _check_correlated(node: Node) -> None:
    if node["covariance"] is not None:
        check_covariance("prior.covariance", node["covariance"], size=node["latent_dim"])


def _check_elbo(node: Node) -> None:
    check_annealing(node["annealing"], node["warmup"])
    free = node["capacity"] is None or not node["free_bits"]
    require(free, "objective.free_bits", node["free_bits"], "0 with objective.capacity, which charges every nat")
    if node["balance"]:
        by_level = not node["free_bits"] or node["free_bits_per"] == "level"
        require(by_level, "objective.free_bits_per", node["free_bits_per"], "level with objective.balance")
        rises = node["annealing"] != "constant" and node["capacity"] is None
        require(rises, "objective.balance", "true", "false where no β rises, for it is of the warm-up")


def _check_autoregressive(node: Node) -> None:
    heads = node["heads"]
    require(node["width"] % heads == 0, "prior.width", node["width"], f"a multiple of prior.heads = {heads}")


def _check_fsq(node: Node) -> None:
    levels, latent_dim = node["levels"], node["latent_dim"]
    fits = isinstance(levels, int) or len(levels) == latent_dim
    require(fits, "posterior.levels", levels, f"as many as latent_dim = {latent_dim}, or a single one for all")
    codes = math.prod([levels] * latent_dim if isinstance(levels, int) else levels)
    require(codes <= MOST_CODES, "posterior.levels", levels, f"at most {MOST_CODES:,} codes, and these are {codes:,}")


def _check_mmd(node: Node) -> None:
    alpha, weight = node["alpha"], node["weight"]
    require(alpha + weight >= 1, "objective.weight", weight, f"at least 1 − objective.alpha = {1 - alpha:g}")


_OF_A_CLASS: Mapping[str, Callable[[Node], None]] = {
    "vae.data.strokes.Strokes": _check_strokes,
    "vae.model.resnet.Resnet": _check_resnet,
    "vae.model.priors.Correlated": _check_correlated,
    "vae.model.sequences.Autoregressive": _check_autoregressive,
    "vae.model.fsq.FSQ": _check_fsq,
    "vae.model.objectives.ELBO": _check_elbo,
    "vae.model.batchwise.MMD": _check_mmd,
}


# Several groups' choices ----------------------------------------------------------------------------------------------


def check_together(config: Mapping[str, Any]) -> None:
    """Refuse choices that are good by themselves but not with each other."""
    prior, posterior, objective = config["prior"], config["posterior"]["_target_"], config["objective"]
    target = prior["_target_"]
    if posterior == "vae.model.posteriors.Tied" and target in NOT_GAUSSIAN:
        name = target.rpartition(".")[2]
        raise ValueError(f"posterior=tied: must be diagonal or full with a prior that is not Gaussian ({name})")
    if objective["_target_"] in INDEPENDENT and target in NOT_GAUSSIAN:
        raise ValueError(
            f"objective={choice(objective)}: must have a Gaussian prior, such as isotropic, correlated or learned, as "
            f"it asks for codes as independent as that is, and those of prior={choice(prior)} are nowhere independent"
        )
    if objective["_target_"] == "vae.model.rae.RAE" and target.startswith("vae."):
        words = "mixture or learned with objective=rae, which fits it to the codes"
        require(target in FITTED, "prior", choice(prior), words)
    _check_codes(config)
    if config["backbone"].get("below"):
        _check_levels(objective)
    elif objective.get("balance"):
        require(False, "objective.balance", "true", "false without levels to balance; backbone.below makes some")
    if objective.get("free_bits") and objective.get("free_bits_per") == "dimension":
        parts = ("vae.model.priors.Isotropic", "vae.model.posteriors.Diagonal")
        ok = not target.startswith("vae.") or (target, posterior) == parts
        allowed = "total, but for prior=isotropic with posterior=diagonal, whose KL is a sum over dimensions"
        require(ok, "objective.free_bits_per", "dimension", allowed)
    warmup = objective["warmup"] if objective["_target_"] == "vae.model.objectives.ELBO" else 0
    epochs = config["epochs"]
    require(warmup <= epochs, "objective.warmup", f"{warmup:g}", f"at most the training's {epochs} epochs")


def _check_codes(config: Mapping[str, Any]) -> None:
    """Refuse what does not go with codes, and their priors where there are none."""
    prior, backbone, name = config["prior"]["_target_"], config["backbone"], choice(config["posterior"])
    if not is_coded(config):
        coded = prior not in OVER_CODES
        words = f"isotropic or another over vectors with posterior={name}; posterior=codebook makes codes"
        require(coded, "prior", choice(config["prior"]), words)
        return
    over_codes = not prior.startswith("vae.") or prior in OVER_CODES
    require(over_codes, "prior", choice(config["prior"]), f"uniform or autoregressive with posterior={name}")
    if prior.endswith("Autoregressive") and config["posterior"]["_target_"].endswith("Gumbel"):
        words = "uniform with posterior=gumbel, whose gradient is of an exact KL"
        require(False, "prior", "autoregressive", words)
    require(not backbone.get("below"), "backbone.below", backbone.get("below"), f"[] with posterior={name}")
    places = config["posterior"]["places"]
    free = places is None or backbone["_target_"] not in OF_MAPS
    require(free, "posterior.places", places, "null with maps, which have places of their own")
    objective = config["objective"]
    plainly = objective["_target_"] in ("vae.model.objectives.ELBO",) or not objective["_target_"].startswith("vae.")
    require(plainly, "objective", choice(objective), f"elbo with posterior={name}, which makes codes")
    for key, none in (("free_bits", 0), ("capacity", None), ("balance", False)):
        words = f"{'null' if none is None else str(none).lower()} with posterior={name}, whose kl no gradient changes"
        require(objective.get(key, none) == none, f"objective.{key}", objective.get(key), words)
    require(not config["figures"].get("film"), "figures.film", "true", f"false with posterior={name}")


def _check_levels(objective: Node) -> None:
    """Refuse objectives that ask for one vector of latents."""
    target = objective["_target_"]
    if target in ONE_LEVEL or objective.get("dreg"):
        name = "dreg" if objective.get("dreg") else choice(objective)
        raise ValueError(
            f"objective={name}: must be elbo, iwae, renyi or autoencoder with backbone.below, because it asks for the "
            "distribution of one vector of latents, and there are several levels"
        )
