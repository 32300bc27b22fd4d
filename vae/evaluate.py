"""Evaluate a trained model: the measures that apply, in one table and in `evaluation.json` beside its metrics."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from vae.files import relative, write_json
from vae.measures import EVERY, Effort, NotApplicableError, Subject, Values, measure, select
from vae.results import EVALUATION, read_json

log = logging.getLogger(__name__)


class Findings(NamedTuple):
    """What an evaluation gave."""

    values: Values  # by their TensorBoard tags
    table: str
    left_out: dict[str, str]  # the measures that do not apply, with the reason


class Evaluation:
    """Which measures are taken, and with how much effort. `metrics=None` means all that apply, `images=None` all."""

    def __init__(self, metrics: Sequence[str] | None, images: int | None, samples: int, method: str = "importance"):
        self.names = select(metrics or ())
        self.effort = Effort(EVERY if images is None else images, samples, method)

    def __call__(self, subject: Subject, folder: Path, step: int, epoch: int) -> Findings:
        """Measure a model of so many training steps, in that epoch, and write the values into its run's folder.

        What an earlier evaluation of the same weights measured besides is kept. Each measure's values are written when
        they are there, because what comes next may be stopped or fail.
        """
        path = folder / EVALUATION
        before = read_json(path) or {}
        kept = before if before.get("step") == step else {}
        values: Values = {}
        left_out = {}
        lines = []
        log.info("measuring %s", ", ".join(self.names))  # the first of them may take a minute
        for name in self.names:
            start = time.perf_counter()
            try:
                found = measure(subject, name)
            except NotApplicableError as reason:
                left_out[name] = str(reason)
                continue
            values |= {f"test/{key}": value for key, value in found.items()}
            lines += [f"{name:<16}{key:<28}{value:>12.5g}" for key, value in found.items()]
            write_json(path, kept | {"epoch": epoch, "step": step} | values)
            log.info("%s: %.1f s", name, time.perf_counter() - start)
        rule = ["─" * 56] if lines else []
        notes = [f"left out: {name} ({reason})" for name, reason in left_out.items()]
        written = [f"written to {relative(path)}"] if lines else []
        head = f"{subject.data.name}: {relative(folder)}, weights of epoch {epoch}"
        table = [head, *rule, *lines, *rule, *notes, *written]
        return Findings(values, "\n".join(table), left_out)
