"""Ranges of classes and YAMLs of one's own."""

import functools

import pytest
from refused import composed_once, refusal

from vae.settings.compose import composed
from vae.settings.config import check, plain


def test_a_key_of_a_foreign_class_has_the_range_of_the_one_in_whose_place_it_stands():
    cfg = composed_once("prior=mixture").copy()
    cfg.prior._target_ = "collections.Counter"  # takes any key
    check(cfg)
    cfg.prior.components = 0
    assert refusal(lambda: cfg).startswith("prior.components=0: must be an integer from 1 to 100000")


def test_a_foreign_class_has_the_ranges_of_the_yaml_and_not_of_what_was_added():
    """`hidden` is a list in one YAML and an integer in the other; each class may have the other's key as well."""
    foreign = "backbone._target_=collections.Counter"  # takes any key
    for yaml, added, wrong in (("dense", "channels=many", "hidden=8"), ("conv", "gated=perhaps", "hidden=[8]")):
        check(composed(f"backbone={yaml}", foreign, f"+backbone.{added}"))
        assert refusal(lambda: composed(f"backbone={yaml}", foreign, f"+backbone.{added}", f"backbone.{wrong}"))  # noqa: B023


# A folder of one's own ------------------------------------------------------------------------------------------------

OWN = {
    "wide": "_target_: vae.model.backbones.Dense\nlatent_dim: ${latent_dim}\nhidden: ['2048']\ngated: no\nbelow: []\n",
    "odd": "_target_: vae.model.backbones.Dense\nlatent_dim: ${latent_dim}\nhidden: []\ngated: false\nbelow: []\n",
    "short": "_target_: vae.model.backbones.Dense\nlatent_dim: ${latent_dim}\nhidden: [8]\n",
    "extra": "_target_: vae.model.backbones.Dense\nlatent_dim: 2\nhidden: [8]\ngated: false\nbelow: []\ngatde: true\n",
    "foreign": "_target_: collections.Counter\ndepth: many\n",
}


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("wide", None),
        ("foreign", None),
        ("odd", "backbone.hidden=[]: must be a list of 1 to 100 integers from 1 to 1000000"),
        ("short", "backbone.gated: cannot be left out; give it as backbone.gated=…"),
        ("extra", "backbone.gatde: no such key; did you mean backbone.gated?"),
    ],
)
def test_a_yaml_of_one_s_own_has_the_ranges_of_its_class(tmp_path, name, line):
    (tmp_path / "backbone").mkdir()
    (tmp_path / "backbone" / f"{name}.yaml").write_text(OWN[name])
    make = functools.partial(composed, f"hydra.searchpath=[file://{tmp_path}]", f"backbone={name}")
    if line:
        assert refusal(make) == line
        return
    cfg = make()
    check(cfg)
    if name == "wide":
        assert plain(cfg)["backbone"]["hidden"] == [2048] and plain(cfg)["backbone"]["gated"] is False
