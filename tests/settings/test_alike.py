"""Which configurations are trained together."""

from collections.abc import Callable
from typing import Any

import pytest

from vae.settings.alike import NUMBERS, in_groups, shape_of, why_alone
from vae.settings.ranges import RANGES

Compose = Callable[..., dict[str, Any]]

NUMBERED = [
    "seed=1",
    "beta=4",
    "epochs=3",
    "ema=0.9",
    "report=last",
    "optimizer=adamw",
    "optimizer.lr=0.01",
    "scheduler=cosine",
    "figures=none",
    "evaluate=full",
    "logger=csv",
    "trainer.gradient_clip_val=1",
    "data.root=elsewhere",
    "prior.covariance=[[1,0.5],[0.5,1]]",
    "objective.annealing=cyclical",
]
OTHER = [
    "latent_dim=3",
    "prior=isotropic",
    "posterior=tied",
    "backbone.hidden=[64]",
    "conditional=true",
    "likelihood=gaussian",
    "objective=tc",
    "objective.free_bits=0.5 objective.free_bits_per=total",
    "objective.capacity=5",
    "data.limit=100",
    "data.batch_size=20",
    "trainer.precision=64-true",
    "trainer.accelerator=cpu",
]


def test_runs_whose_steps_differ_in_numbers_are_alike(compose: Compose) -> None:
    usual = shape_of(compose("prior=correlated"))
    assert [word for word in NUMBERED if shape_of(compose("prior=correlated", word)) != usual] == []


def test_runs_of_other_formulas_or_sizes_are_not(compose: Compose) -> None:
    usual = shape_of(compose("prior=correlated"))
    assert [words for words in OTHER if shape_of(compose("prior=correlated", *words.split())) == usual] == []


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("objective=factor", "objective=factor has a critic with steps of its own"),
        ("objective=rae prior=mixture", "objective=rae charges the decoder's weights themselves"),
        ("objective=dreg", "objective=dreg changes the gradient on its way"),
        ("posterior=fsq prior=uniform", "posterior=fsq and the prior over its codes learn beside the gradient"),
        ("likelihood=gaussian likelihood.sigma=optimal", "likelihood.sigma=optimal goes beside the gradient"),
        ("likelihood=gaussian likelihood.sigma=learned", "likelihood.sigma=learned goes beside the gradient"),
        ("trainer=ddp trainer.devices=2", "its trainer asks for more than single steps on one device"),
        ("+trainer.limit_train_batches=3", "its trainer asks for more than single steps on one device"),
        ("trainer.precision=bf16-mixed", "trainer.precision=bf16-mixed scales the loss"),
        ("backbone._target_=ours.Net", "backbone._target_=ours.Net is a class from elsewhere"),
    ],
)
def test_what_cannot_be_trained_together_says_why(word: str, reason: str, compose: Compose) -> None:
    plain_words = [each for each in word.split() if not each.startswith("backbone._target_")]
    config = compose(*plain_words)
    if plain_words != word.split():
        config["backbone"] = {**config["backbone"], "_target_": "ours.Net"}
    assert why_alone(config) == reason


def test_groups_keep_the_order_and_name_each_reason_once(compose: Compose) -> None:
    configs = [
        compose("seed=1"), compose("objective=wae_gan"), compose("latent_dim=3"), compose("beta=2"),
        compose("objective=wae_gan", "seed=2"), compose("latent_dim=3", "seed=2"),
    ]  # fmt: skip
    assert why_alone(configs[0]) is None
    groups, reasons = in_groups(configs)
    assert groups == [[0, 3], [1], [2, 5], [4]]
    assert reasons == ["objective=wae_gan has a critic with steps of its own"]


def test_numbers_are_keys_of_their_objectives() -> None:
    for target, names in NUMBERS.items():
        assert {*names} <= RANGES["objective"][target].keys()
