"""The values that the keys of loggers may have, as vae.settings.ranges has them of all else. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping

from vae.settings.ranges import MANY, Ranges
from vae.settings.rules import boolean, integer, listed, optional, text, texts_by_name

# Of the loggers beside TensorBoard, each under its name in the group `logger`.
LOGGERS: Mapping[str, Ranges] = {
    "pytorch_lightning.loggers.CSVLogger": {"flush_logs_every_n_steps": integer(1, MANY)},
    "pytorch_lightning.loggers.MLFlowLogger": {
        "experiment_name": text,
        "tracking_uri": text,
        "artifact_location": optional(text),
        "tags": optional(texts_by_name("texts by name")),
    },
    "pytorch_lightning.loggers.WandbLogger": {
        "project": text,
        "offline": boolean,
        **dict.fromkeys(("entity", "group", "job_type"), optional(text)),
        "tags": listed(0, 100, text, "a list of texts"),
    },
}
