"""Train a run and look at one, from Python and notebooks. Imports no torch."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.global_hydra import GlobalHydra

from vae.common import terminal
from vae.common.logs import restored
from vae.common.types import WEIGHTS
from vae.entry import cli
from vae.settings.compose import conf
from vae.settings.config import quoted
from vae.settings.errors import explain

# Everything heavy waits until logging is set up: Lightning would print on its own.
if TYPE_CHECKING:
    from vae.data.loader import BatchLoader
    from vae.model.vae import VAE
    from vae.study.scene import Scene
    from vae.use.trained import Trained

log = logging.getLogger(__name__)

DRAWN = 2000  # images


def train(*overrides: str, folder: str | Path | None = None) -> Trained:
    """Train what `python train.py` would with these overrides, and load it as `vae.load` does.

    Without a `folder` a new one is made, as the command line makes it. A run that is complete in the folder is loaded
    as it is, and one that was interrupted goes on.
    """
    arguments = [*overrides, *([] if folder is None else [f"hydra.run.dir={quoted(str(folder))}"])]
    cli.prepare()
    try:
        with restored(), conf():
            hydra = GlobalHydra.instance().hydra
            assert hydra is not None
            done = hydra.run("config", cli.train_job, arguments)
            assert done.hydra_cfg is not None
            folder = folder or done.hydra_cfg.hydra.runtime.output_dir
    except SystemExit as stop:  # how the command line ends; without a code where there is nothing left to train
        if stop.code:
            raise ValueError(str(stop.code).removeprefix("error: ")) from None
    except Exception as error:
        raise ValueError(explain(error)) from None
    finally:
        terminal.clear()
    assert folder is not None
    from vae.use.trained import load

    names_own_classes = any("_target_=" in text for text in overrides)
    return load(folder, trust=names_own_classes)


def scene(
    run: str | Path,
    grid: str | None = None,
    walk: str | None = None,
    data_root: str | None = None,
    trust: bool = False,
) -> Scene:
    """The pictures of a run's folder (its reported weights) or of a checkpoint: `vae.scene(run).draw("manifold")`.

    `grid` is the manifold's and `walk` the traversal's, by default the run's own; `data_root` is where the data are, if
    not where they were. For weights that came without their run, images that the model draws stand in for data that
    cannot be had.
    """
    from vae.data.base import DataError
    from vae.data.loader import evaluation_loader
    from vae.model import checkpoints, restored
    from vae.study.scene import Scene

    file = checkpoints.file_of(Path(run))
    checkpoint = checkpoints.read(file)
    about = checkpoint["vae"]
    model = restored.model_of(checkpoint, trust)
    try:
        source, data = restored.data_of(about, data_root, trust)
        loader = evaluation_loader(source, data.test, "test")
    except DataError as error:
        if file.name != WEIGHTS or data_root is not None:
            raise
        log.warning("there are no test images, so the model draws some. The reason: %s", error)
        loader, about = _drawn(model, about)
    last = file.with_name("last.ckpt")  # knows of all epochs
    latest = checkpoints.read(last) if last.is_file() else checkpoint
    own = about["config"].get("figures", {})
    return Scene(
        model,
        loader,
        about,
        checkpoint["epoch"] + 1,
        grid or own.get("grid", "whitened"),
        walk or own.get("walk", "axis"),
        latest.get("callbacks", {}).get("Scalars", {}).get("history", []),
    )


def _drawn(model: VAE, about: Mapping[str, Any]) -> tuple[BatchLoader, Mapping[str, Any]]:
    """Images that a model draws itself, of all classes in turn if it knows them, and what to say of them."""
    import torch

    from vae.data.base import Split
    from vae.data.loader import BatchLoader
    from vae.use.trained import Trained

    classes = about["classes"] if about["config"]["conditional"] else []
    labels = torch.arange(DRAWN) % max(1, len(classes))
    images = Trained(model, about).sample(DRAWN, labels=labels if classes else None)
    loader = BatchLoader(Split((255 * images).round().byte(), labels), batch_size=512)
    return loader, {**about, "classes": classes, "data": f"drawn by a model of {about['data']}"}
