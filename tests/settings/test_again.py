"""What is typed again for a configuration must make it again."""

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from vae.settings.again import overrides_for
from vae.settings.compose import composed
from vae.settings.config import check, flatten, plain, quoted

ROOT = Path(__file__).parents[2]

ROOT_OF_DATA = "data.root=" + quoted("/some where/it's")
TYPED = [
    [],
    ["experiment=tutorial_correlated", "backbone=conv", "epochs=5", ROOT_OF_DATA],
    ["objective=wae_gan", "prior=mixture", "prior.components=7", "likelihood=gaussian", "likelihood.sigma=optimal"],
    ["objective=distillation", "objective.teacher=a/run", "backbone.hidden=[64,32]", "parent=b", "conditional=true"],
    ["posterior=codebook", "prior=autoregressive", "figures.only=[samples]", "logger=csv", "data=strokes"],
    ["prior.covariance=[[2.0,-0.7],[-0.7,1.5]]", "prior=correlated", "scheduler=cosine", "trainer.precision=64-true"],
    ["optimizer._target_=torch.optim.SGD", "~optimizer.betas", "~optimizer.fused", "+optimizer.momentum=0.9"],
]


@pytest.mark.parametrize("typed", TYPED, ids=lambda typed: typed[0] if typed else "default")
def test_a_configuration_is_composed_again(typed):
    config = plain(composed(*typed))
    cfg = composed(*overrides_for(config))
    check(cfg)
    assert plain(cfg) == config


def test_an_older_configuration_has_defaults_where_it_says_nothing():
    config: Any = OmegaConf.to_container(OmegaConf.load(ROOT / "outputs" / "examples" / "tutorial_3d" / "config.yaml"))
    assert "ema" not in config
    cfg = composed(*overrides_for(config))
    check(cfg)
    flat = flatten(plain(cfg))
    assert {key: flat[key] for key in flatten(config)} == flatten(config) and flat["ema"] == 0


def test_little_is_typed():
    assert "++latent_dim=3" in overrides_for(plain(composed("latent_dim=3")))
    assert not any("prior.latent_dim" in each for each in overrides_for(plain(composed("latent_dim=3"))))
