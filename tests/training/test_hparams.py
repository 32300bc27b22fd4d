"""The columns and rows of TensorBoard's HParams table."""

from typing import Any

import pytest
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import metadata

from vae.training import hparams


def shown(summary: Summary) -> tuple[dict[str, bool], list[str]]:
    """Each parameter's column and whether TensorBoard is to show it at once; the metrics' tags."""
    found = metadata.parse_experiment_plugin_data(summary.value[0].metadata.plugin_data.content)
    return {info.name: info.differs for info in found.hparam_infos}, [info.name.tag for info in found.metric_infos]


def test_a_row_has_the_words_that_one_types(compose: Any) -> None:
    overrides = ["likelihood=continuous_bernoulli", "experiment=tutorial_2d", "optimizer.lr=0.01", "data.limit=50"]
    config = compose(*overrides, "conditional=true", "latent_dim=3")
    row = hparams.row_of(config, {"likelihood": "continuous_bernoulli", "data": "mnist"}, overrides)
    assert (row["likelihood"], row["data"], row["prior"]) == ("continuous_bernoulli", "mnist", "isotropic")
    assert (row["optimizer.lr"], row["data.limit"], row["latent_dim"]) == (0.01, 50, 3)
    assert row["conditional"] == "true"
    assert row.keys().isdisjoint({"experiment", *hparams.HOW})


def test_a_row_has_no_beta_without_one_and_spells_lists_and_nothing(compose: Any) -> None:
    overrides = ["objective=iwae", "backbone.hidden=[64,32]", "data.limit=null"]
    row = hparams.row_of(compose(*overrides), {}, overrides)
    assert "beta" not in row
    assert (row["backbone.hidden"], row["data.limit"], row["conditional"]) == ("[64, 32]", "null", "false")


def test_the_columns_are_the_same_whichever_run_tells_them(compose: Any) -> None:
    typed = [["latent_dim=3"], ["prior=correlated", "prior.covariance=[[2.0,0.5],[0.5,1.0]]"], ["optimizer.lr=0.1"]]
    rows = [hparams.row_of(compose(*overrides), {}, overrides) for overrides in typed]
    (first, metrics), *others = [shown(hparams.columns(row, [])) for row in rows]
    assert all(columns.keys() == first.keys() and tags == metrics for columns, tags in others)
    assert {"latent_dim", "prior", "prior.covariance", "optimizer.lr", "objective.free_bits"} <= first.keys()
    assert first.keys().isdisjoint({"prior.latent_dim", "objective.beta", "trainer.devices", "report", "data.root"})


@pytest.mark.parametrize(
    ("differing", "expected"),
    [
        ([], {"latent_dim", "prior", "beta", "posterior", "backbone"}),
        (["seed", "data.limit"], {"seed", "data.limit", "latent_dim", "prior", "beta"}),
        (["seed", "no.such", "trainer.accelerator", "prior"], {"seed", "prior", "latent_dim", "beta", "posterior"}),
    ],
)
def test_what_differs_is_shown_first(differing: list[str], expected: set[str], compose: Any) -> None:
    typed = ["data.limit=50", "trainer.accelerator=cpu"]
    row = hparams.row_of(compose(*typed), {}, typed)
    columns, metrics = shown(hparams.columns(row, differing))
    assert {name for name, first in columns.items() if first} == expected
    assert len(expected) == hparams.SHOWN
    assert metrics[: hparams.SHOWN] == ["test/total", "test/recon", "test/kl", "val/total", "val/loss"]
