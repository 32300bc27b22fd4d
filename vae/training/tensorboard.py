"""What is written for TensorBoard, and how: in the run's folder itself, so that the run is called by its name."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytorch_lightning as pl
from google.protobuf.text_format import MessageToString
from PIL import Image
from pytorch_lightning.loggers import TensorBoardLogger
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.tensorflow_stub import pywrap_tensorflow
from tensorboard.plugins.hparams import metadata as hparams_metadata
from tensorboard.plugins.hparams.api_pb2 import Status
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo
from tensorboard.plugins.projector import ProjectorConfig
from torch import Tensor
from torch.utils.tensorboard.summary import hparams

from vae.common.files import replacing
from vae.common.types import TERMS
from vae.figures.style import mosaic
from vae.settings.compose import program
from vae.settings.config import flatten, has_beta, kind

# TensorBoard's own checksums go through every byte in Python, which is a tenth of the time that pictures take.
pywrap_tensorflow.crc32c = google_crc32c.value

SPRITE = 8192  # pixels: the largest picture that browsers take as a texture


class RunLogger(TensorBoardLogger):
    """One event file for the whole run; no `hparams.yaml`, no `hp_metric`."""

    def __init__(self, folder: Path, purge_step: int | None = None):
        # What a killed process wrote after its last checkpoint is written again: purge_step hides the first version.
        super().__init__(folder, name="", version="", default_hp_metric=False, purge_step=purge_step)

    def save(self) -> None:
        self.experiment.flush()

    def finalize(self, status: str) -> None:
        self.experiment.flush()  # Lightning finalises after fitting, but the test's figures come after that

    def close(self) -> None:
        """End the event file."""
        self.experiment.close()

    @contextmanager
    def session(
        self, config: Mapping[str, Any], overrides: Sequence[str], ledger: str, terms: Sequence[str] = TERMS
    ) -> Iterator[None]:
        """Say what the run is and, unless it is interrupted, how it ended.

        `overrides` is what was typed: the command to repeat the run, and columns of the HParams table. `ledger` is
        Markdown, `terms` are what the charts show.
        """
        self.start(config, overrides, ledger, terms)
        try:
            yield
            self.end(succeeded=True)
        except Exception:
            self.end(succeeded=False)
            raise
        finally:  # an interrupted run has not ended: TensorBoard would keep to the first end that it reads
            self.close()

    def start(
        self, config: Mapping[str, Any], overrides: Sequence[str], ledger: str, terms: Sequence[str] = TERMS
    ) -> None:
        """Texts, the losses' common chart, and this run's row in the HParams table."""
        self.experiment.add_text("configuration", f"```json\n{json.dumps(config, indent=2, ensure_ascii=False)}\n```")
        self.experiment.add_text("command", f"    {program()} {shlex.join(overrides)}")
        self.experiment.add_text("ledger", ledger)
        shown = [term for term in TERMS if term in terms]
        together = [f"{part}/{term}" for term in shown for part in ("train", "val")]
        charts = {term: ["Multiline", [f"train/{term}", f"val/{term}"]] for term in shown}
        self.experiment.add_custom_scalars({"losses": {"all": ["Multiline", together], **charts}})
        # The session records without the experiment's: TensorBoard then unites the columns of all runs, and any scalar
        # can be the metric.
        _, start, _ = hparams(hyperparameters(config, overrides), {})
        self._write(start)

    def end(self, succeeded: bool) -> None:
        """How the run ended, for the HParams table."""
        status = Status.Value("STATUS_SUCCESS" if succeeded else "STATUS_FAILURE")
        content = HParamsPluginData(
            session_end_info=SessionEndInfo(status=status), version=hparams_metadata.PLUGIN_DATA_VERSION
        )
        plugin = SummaryMetadata.PluginData(
            plugin_name=hparams_metadata.PLUGIN_NAME, content=content.SerializeToString()
        )
        value = Summary.Value(tag=hparams_metadata.SESSION_END_INFO_TAG, metadata=SummaryMetadata(plugin_data=plugin))
        self._write(Summary(value=[value]))

    def image(self, tag: str, png: bytes, image: Image.Image, step: int) -> None:
        """A picture that is encoded already; SummaryWriter's own `add_image` would encode it again."""
        value = Summary.Image(
            height=image.height, width=image.width, colorspace=len(image.getbands()), encoded_image_string=png
        )
        self._write(Summary(value=[Summary.Value(tag=tag, image=value)]), step)

    def codes(self, means: Tensor, labels: Sequence[str], images: Tensor) -> None:
        """The projector's points with their classes and pictures: means (n, latent_dim), images (n, c, h, w)."""
        # Not by SummaryWriter.add_embedding, which compresses the sprite for half a second and appends to an earlier
        # call's configuration, so that a resumed run's points would stand there twice.
        folder = Path(self.log_dir) / "projector"
        config = ProjectorConfig()
        codes = config.embeddings.add(tensor_name="codes", tensor_path="projector/codes.tsv")
        missing = max(0, 3 - means.shape[1])  # with fewer than three dimensions the projector stays empty
        with replacing(folder / "codes.tsv") as temporary:
            np.savetxt(temporary, np.pad(means.numpy(), ((0, 0), (0, missing))), fmt="%.6g", delimiter="\t")
        codes.metadata_path = "projector/labels.tsv"
        with replacing(folder / "labels.tsv") as temporary:
            temporary.write_text("\n".join(labels) + "\n", encoding="utf-8")

        n, _, height, width = images.shape
        across = math.ceil(math.sqrt(n))  # images in a row of the sprite
        if across * max(height, width) <= SPRITE:
            tiles = np.zeros((across * across, *images.shape[1:]), dtype=np.float32)
            tiles[:n] = images.numpy()
            sprite = (255 * mosaic(tiles.reshape(across, across, *images.shape[1:]))).astype(np.uint8)
            with replacing(folder / "sprite.png") as temporary:
                Image.fromarray(sprite).save(temporary, compress_level=1)
            codes.sprite.image_path = "projector/sprite.png"
            codes.sprite.single_image_dim.extend([width, height])
        with replacing(folder.parent / "projector_config.pbtxt") as temporary:
            temporary.write_text(MessageToString(config), encoding="utf-8")

    def mesh(self, points: Tensor, colours: Tensor, step: int) -> None:
        """Three-dimensional codes (n, 3) as points to turn, with colours (n, 3) in 0 … 255."""
        look = {"material": {"cls": "PointsMaterial", "size": 0.06}}
        self.experiment.add_mesh("latent/mesh", points[None], colours[None], config_dict=look, global_step=step)

    def _write(self, summary: Summary, step: int | None = None) -> None:
        self.experiment._get_file_writer().add_summary(summary, step)


def run_logger(trainer: pl.Trainer) -> RunLogger:
    """The logger of a trainer that `vae.training.run` made."""
    assert isinstance(trainer.logger, RunLogger)
    return trainer.logger


def hyperparameters(config: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """The columns of the HParams table: the top-level keys, every group's choice, and whatever was overridden."""
    columns: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            columns[key] = kind(value)
        else:
            columns[key] = value
    if not has_beta(config):
        del columns["beta"]
    for name in ("figures", "evaluate", "trainer", "report"):  # how it was run, not what
        del columns[name]
    flat = flatten(config)
    for override in overrides:
        key, _, value = override.lstrip("+").partition("=")
        if key in flat or key in columns:
            columns[key] = flat.get(key, value)
    return {key: value if isinstance(value, bool | int | float | str) else str(value) for key, value in columns.items()}
