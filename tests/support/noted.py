"""A logger of a user's own that remembers what it was told."""

from collections.abc import Mapping
from typing import Any

from pytorch_lightning.loggers.logger import Logger


class Noted(Logger):
    """Fails at a step, if one is given."""

    told: list[Any]

    def __init__(self, fails_at: int | None = None):
        super().__init__()
        self.fails_at = fails_at
        type(self).told = []

    @property
    def name(self) -> str:
        return "noted"

    @property
    def version(self) -> str:
        return ""

    def log_hyperparams(self, params: Mapping[str, Any], *arguments: Any) -> None:  # type: ignore[override]
        self.told.append(params)

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:  # type: ignore[override]
        if self.fails_at is not None and step >= self.fails_at:
            raise ConnectionError("nobody answers")
        self.told.append((step, metrics))

    def finalize(self, status: str) -> None:
        self.told.append(status)
