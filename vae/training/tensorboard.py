"""What is written for TensorBoard, and how: in the run's folder itself, so that the run is called by its name."""

from __future__ import annotations

import json
import math
import os
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytorch_lightning as pl
import torch
from google.protobuf.text_format import MessageToString
from PIL import Image
from pytorch_lightning.loggers import TensorBoardLogger
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.tensorflow_stub import pywrap_tensorflow
from tensorboard.plugins.projector import ProjectorConfig
from torch import Tensor

from vae.common.files import replacing
from vae.common.signals import unmasked
from vae.common.types import TERMS
from vae.figures.style import mosaic
from vae.runs.losses import PARTS
from vae.settings.compose import program
from vae.training import hparams
from vae.training.loggers import Beside

# TensorBoard's own checksums go through every byte in Python, which is a tenth of the time that pictures take.
pywrap_tensorflow.crc32c = google_crc32c.value

DOT = 16  # pixels of the picture of a point in the projector, half of them its diameter


def _wait_for_a_later_name(folder: Path) -> None:
    """Let the next event file be the last by name, for TensorBoard reads a run's files in that order.

    A name has the second, the process and a count, of which 10 goes before 9.
    """
    while any(map(_may_come_after_the_next, folder.glob("events.out.tfevents.*"))):
        time.sleep(0.05)


def _may_come_after_the_next(file: Path) -> bool:
    second, *_, process, count = file.name.removeprefix("events.out.tfevents.").split(".")
    is_like_it = second == f"{int(time.time()):010d}" and process == str(os.getpid()) and count.isdigit()
    return is_like_it and len(str(int(count) + 20)) > len(count)


class RunLogger(TensorBoardLogger):
    """One event file for the whole run; no `hparams.yaml`, no `hp_metric`. Passes on what loggers `beside` can take."""

    def __init__(self, folder: Path, purge_step: int | None = None, beside: Beside | None = None):
        if purge_step is not None:
            _wait_for_a_later_name(folder)
        # What a killed process wrote after its last checkpoint is written again: purge_step hides the first version.
        super().__init__(folder, name="", version="", default_hp_metric=False, purge_step=purge_step)
        self.beside = beside or Beside()

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:  # type: ignore[override]
        super().log_metrics(metrics, step)
        self.beside.metrics(metrics, step)

    def save(self) -> None:
        self.experiment.flush()

    def finalize(self, status: str) -> None:
        self.experiment.flush()  # Lightning finalises after fitting, but the test's figures come after that

    def close(self) -> None:
        """End the event file."""
        self.experiment.close()

    @contextmanager
    def session(
        self,
        config: Mapping[str, Any],
        overrides: Sequence[str],
        row: Sequence[Summary],
        ledger: str,
        terms: Sequence[str],
    ) -> Iterator[None]:
        """Say what the run is and, unless it is interrupted, how it ended.

        `overrides` is what was typed, `row` the run's own in the HParams table and its columns, `ledger` is Markdown,
        `terms` are what the charts show.
        """
        self.beside.begin(config)
        self._start(config, overrides, ledger, terms)
        for summary in row:
            self._write(summary)
        state = "interrupted"
        try:
            with unmasked():
                yield
            self._write(hparams.end(succeeded=True))
            state = "completed"
        except Exception:
            self._write(hparams.end(succeeded=False))
            state = "failed"
            raise
        finally:  # an interrupted run has not ended: TensorBoard would keep to the first end that it reads
            self.beside.end(state)
            self.close()

    def _start(self, config: Mapping[str, Any], overrides: Sequence[str], ledger: str, terms: Sequence[str]) -> None:
        """Texts, and a chart for each loss of all parts of the data."""
        self.experiment.add_text("configuration", f"```json\n{json.dumps(config, indent=2, ensure_ascii=False)}\n```")
        self.experiment.add_text("command", f"    {program()} {shlex.join(overrides)}")
        self.experiment.add_text("ledger", ledger)
        shown = [term for term in TERMS if term in terms]
        charts = {term: ["Multiline", [f"{part}/{term}" for part in PARTS]] for term in (*shown, "loss")}
        self.experiment.add_custom_scalars({"losses": charts})

    def level(self, values: Mapping[str, float], step: int) -> None:
        """Figures of the trained model as lines across their charts, where a single dot is easily missed."""
        super().log_metrics(values, 0)
        self.log_metrics(values, step)

    def image(self, tag: str, png: bytes, image: Image.Image, step: int) -> None:
        """A picture that is encoded already; SummaryWriter's own `add_image` would encode it again."""
        value = Summary.Image(
            height=image.height, width=image.width, colorspace=len(image.getbands()), encoded_image_string=png
        )
        self._write(Summary(value=[Summary.Value(tag=tag, image=value)]), step)
        self.beside.image(tag, image, step)

    def latents(self, scalars: Mapping[str, float], histograms: Mapping[str, Tensor], step: int) -> None:
        """The use of the latent space, by tag."""
        self.log_metrics(scalars, step)
        for tag, values in histograms.items():
            self.experiment.add_histogram(tag, values, step, bins=50)

    def codes(self, means: Tensor, labels: Sequence[str], colours: np.ndarray) -> None:
        """The projector's points with their classes: means (n, latent_dim), colours (n, 3) in [0, 1]."""
        # Not by SummaryWriter.add_embedding, which appends to an earlier call's configuration, so that a resumed run's
        # points would stand there twice.
        folder = Path(self.log_dir) / "projector"
        config = ProjectorConfig()
        codes = config.embeddings.add(tensor_name="codes", tensor_path="projector/codes.tsv")
        missing = max(0, 3 - means.shape[1])  # with fewer than three dimensions the projector stays empty
        with replacing(folder / "codes.tsv") as temporary:
            np.savetxt(temporary, np.pad(means.numpy(), ((0, 0), (0, missing))), fmt="%.6g", delimiter="\t")
        codes.metadata_path = "projector/labels.tsv"
        with replacing(folder / "labels.tsv") as temporary:
            temporary.write_text("\n".join(labels) + "\n", encoding="utf-8")

        # The projector colours points only where somebody asks it to, but shows the picture that it has of each.
        with replacing(folder / "dots.png") as temporary:
            Image.fromarray(_dots(colours)).save(temporary, compress_level=1)
        codes.sprite.image_path = "projector/dots.png"
        codes.sprite.single_image_dim.extend([DOT, DOT])
        with replacing(folder.parent / "projector_config.pbtxt") as temporary:
            temporary.write_text(MessageToString(config), encoding="utf-8")

    def mesh(self, points: np.ndarray, colours: np.ndarray, step: int) -> None:
        """Points (n, 3) to turn, with their colours (n, 3) in [0, 1]."""
        look = {"material": {"cls": "PointsMaterial", "size": 0.06}}
        places, rgb = torch.from_numpy(points)[None], torch.from_numpy(255 * colours).int()[None]
        self.experiment.add_mesh("latent/mesh", places, rgb, config_dict=look, global_step=step)

    def _write(self, summary: Summary, step: int | None = None) -> None:
        self.experiment._get_file_writer().add_summary(summary, step)


def _dots(colours: np.ndarray) -> np.ndarray:
    """A sprite: row by row a dot of each colour (n, 3), with nothing around it, uint8 (height, width, 4)."""
    across = math.ceil(math.sqrt(len(colours)))
    place = np.arange(DOT) - (DOT - 1) / 2
    inside = np.hypot(place[:, None], place) < DOT / 4
    rgba = np.zeros((across * across, 4))
    rgba[: len(colours)] = np.column_stack([colours, np.ones(len(colours))])
    return (255 * mosaic((rgba[:, :, None, None] * inside).reshape(across, across, 4, DOT, DOT))).astype(np.uint8)


def run_logger(trainer: pl.Trainer) -> RunLogger:
    """The logger of a trainer that `vae.training.run` made."""
    assert isinstance(trainer.logger, RunLogger)
    return trainer.logger
