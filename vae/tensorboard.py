"""What is written for TensorBoard, and how: in the run's folder itself, so that the run is called by its name."""

from __future__ import annotations

from pathlib import Path

from pytorch_lightning.loggers import TensorBoardLogger


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
