"""Which runs have steps of one shape, so that they can be trained together as one. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vae.settings.classes import CLIP, has_other_arguments, ranges_of
from vae.settings.config import fingerprint, is_place
from vae.settings.together import CODINGS, choice

# Of an objective, the numbers that its loss is a formula of; the formula is another where one of them is 0 or left out.
NUMBERS = {
    "vae.model.objectives.ELBO": ("beta", "free_bits", "capacity"),
    "vae.model.objectives.Autoencoder": (),
    "vae.model.batchwise.TC": ("beta",),
    "vae.model.batchwise.MMD": ("alpha", "weight"),
    "vae.model.batchwise.DIP": ("beta", "off_diagonal", "diagonal"),
    "vae.model.bounds.IWAE": (),
    "vae.model.bounds.Renyi": (),
    "vae.model.transport.Wasserstein": ("weight",),
}
ANNEALING = ("objective.annealing", "objective.warmup", "objective.cycles")  # numbers at any time
# What each run does for itself, before, between and after its steps.
OWN = ("seed", "beta", "epochs", "ema", "report", "optimizer", "scheduler", "figures", "evaluate", "logger")
OWN_TRAINER = ("max_epochs", "log_every_n_steps", *CLIP)
TENSORS = ("prior.covariance", "likelihood.sigma")  # numbers that the model has as such
SEVERAL_PLAYERS = ("vae.model.adversarial.Factor", "vae.model.adversarial.WaeGan", "vae.model.adversarial.VaeGan")


def why_alone(config: Mapping[str, Any]) -> str | None:
    """Why a run cannot be trained together with others, in words; None where it can."""
    for group in ("backbone", "prior", "posterior", "likelihood", "objective"):
        if ranges_of(group, config[group]) is None:
            return f"{group}._target_={config[group]['_target_']} is a class from elsewhere"
    objective, trainer, sigma = config["objective"], config["trainer"], config["likelihood"].get("sigma")
    if objective["_target_"] in SEVERAL_PLAYERS:
        return f"objective={choice(objective)} has a critic with steps of its own"
    if config["posterior"]["_target_"] in CODINGS:
        return f"posterior={choice(config['posterior'])} and the prior over its codes learn beside the gradient"
    if "teacher" in objective:
        return f"objective={choice(objective)} has a teacher beside the model"
    if objective["_target_"] not in NUMBERS:
        return f"objective={choice(objective)} charges the decoder's weights themselves"
    if objective.get("dreg"):
        return "objective=dreg changes the gradient on its way"
    if sigma in ("learned", "optimal"):
        return f"likelihood.sigma={sigma} goes beside the gradient"
    if trainer["devices"] not in (1, "auto") or "strategy" in trainer or has_other_arguments(trainer):
        return "its trainer asks for more than single steps on one device"
    return f"trainer.precision={trainer['precision']} scales the loss" if "16" in trainer["precision"] else None


def shape_of(config: Mapping[str, Any]) -> str:
    """The same for runs whose steps differ in nothing but numbers."""
    numbers = NUMBERS[config["objective"]["_target_"]]

    def is_free(flat: Mapping[str, Any], key: str) -> bool:
        group, _, name = key.partition(".")
        own = group in OWN or (group == "trainer" and name in OWN_TRAINER)
        is_number = key in (*TENSORS, *ANNEALING) or (group == "objective" and name in numbers)
        return own or is_number or is_place(flat, key)

    formula = {name: bool(config["objective"][name]) for name in numbers}
    return fingerprint({**config, "formula": formula}, is_free)


def in_groups(configs: Sequence[Mapping[str, Any]]) -> tuple[list[list[int]], list[str]]:
    """The places of configurations that can be trained together, and why some cannot, each reason once."""
    groups: dict[str, list[int]] = {}
    reasons: dict[str, None] = {}
    for place, config in enumerate(configs):
        why = why_alone(config)
        if why is not None:
            reasons[why] = None
        groups.setdefault(shape_of(config) if why is None else f"alone {place}", []).append(place)
    return list(groups.values()), list(reasons)
