"""TensorBoard's HParams table: its columns, and the row of a run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.plugins.hparams import metadata
from tensorboard.plugins.hparams.api_pb2 import (
    DATA_TYPE_FLOAT64,
    DATA_TYPE_STRING,
    Experiment,
    HParamInfo,
    MetricInfo,
    MetricName,
    Status,
)
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo, SessionStartInfo

from vae.common.types import TERMS
from vae.settings.config import flatten, has_beta, kind
from vae.settings.ranges import RANGES, REPEATED, TOP

Row = dict[str, str | float]

SHOWN = 5  # columns of parameters, and as many of metrics, that TensorBoard shows at first
USUAL = ("latent_dim", "prior", "beta", "posterior", "backbone")
HOW = ("figures", "evaluate", "logger", "trainer", "report")  # how a run is made, not what
WHERE = ("data.root", "data.mirrors", "data.digests")  # where the data lie, a column only if typed
MEASURED = ("nll", "nll_bits_per_dim", "bits_per_dim", "active_units", "mi", "tc")  # of an evaluation
METRICS = (
    *("test/total", "test/recon", "test/kl", "val/total", "val/loss"),
    *("val/recon", "val/kl", "test/loss"),
    *(f"train/{name}" for name in (*TERMS, "loss")),
    *(f"test/{name}" for name in MEASURED),
)


def row_of(config: Mapping[str, Any], choices: Mapping[str, str], overrides: Sequence[str]) -> Row:
    """The top-level keys, the choice of every group, and whatever was overridden, as one types them."""
    columns: dict[str, Any] = {}
    for key, value in config.items():
        if key not in HOW:
            columns[key] = choices.get(key, kind(value)) if isinstance(value, Mapping) else value
    if not has_beta(config):
        del columns["beta"]
    flat = flatten(config)
    columns |= {key: flat[key] for key in typed(overrides) if key in flat}
    return {key: _as_typed(value) for key, value in columns.items()}


def typed(overrides: Sequence[str]) -> list[str]:
    """The keys of overrides."""
    return [override.lstrip("+").partition("=")[0] for override in overrides]


def columns(row: Row, differing: Sequence[str]) -> Summary:
    """The columns of the table, those that differ first.

    TensorBoard takes them from the record of any one run, so they are those of all runs: every key there is.
    """
    names = [
        *TOP,
        *RANGES,
        *(f"{group}.{key}" for group, found in RANGES.items() for keys in found.values() for key in keys),
    ]
    known = [key for key in names if key not in (*REPEATED, *WHERE) and key.partition(".")[0] not in HOW]
    first = [key for key in differing if key in row and key.partition(".")[0] not in HOW]
    first += [key for key in USUAL if key not in first][: max(0, SHOWN - len(first))]
    parameters = [
        HParamInfo(
            name=name,
            type=DATA_TYPE_STRING if isinstance(row.get(name, ""), str) else DATA_TYPE_FLOAT64,
            differs=name in first,
        )
        for name in dict.fromkeys([*row, *known])
    ]
    metrics = [MetricInfo(name=MetricName(tag=tag)) for tag in METRICS]
    return _summary(metadata.EXPERIMENT_TAG, experiment=Experiment(hparam_infos=parameters, metric_infos=metrics))


def start(row: Row) -> Summary:
    """The row of a run that begins."""
    session = SessionStartInfo()
    for key, value in row.items():
        if isinstance(value, str):
            session.hparams[key].string_value = value
        else:
            session.hparams[key].number_value = value
    return _summary(metadata.SESSION_START_INFO_TAG, session_start_info=session)


def end(succeeded: bool) -> Summary:
    """How a run ended."""
    status = Status.Value("STATUS_SUCCESS" if succeeded else "STATUS_FAILURE")
    return _summary(metadata.SESSION_END_INFO_TAG, session_end_info=SessionEndInfo(status=status))


def _as_typed(value: Any) -> str | float:
    if isinstance(value, str) or (isinstance(value, int | float) and not isinstance(value, bool)):
        return value
    return json.dumps(value, ensure_ascii=False)  # true, null, [2.0, 0.5]


def _summary(tag: str, **content: Any) -> Summary:
    data = HParamsPluginData(version=metadata.PLUGIN_DATA_VERSION, **content)
    plugin = SummaryMetadata.PluginData(plugin_name=metadata.PLUGIN_NAME, content=data.SerializeToString())
    return Summary(value=[Summary.Value(tag=tag, metadata=SummaryMetadata(plugin_data=plugin))])
