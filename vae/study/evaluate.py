"""Evaluate a trained model: the measures that apply, in one table and in `evaluation.json` beside its metrics."""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from vae.common.files import read_json, relative, write_json
from vae.common.signals import unmasked
from vae.common.terminal import bar
from vae.runs import measured
from vae.runs.results import EVALUATION
from vae.study.measures import Values, measure, select
from vae.study.subject import EVERY, Effort, NotApplicableError, Subject

log = logging.getLogger(__name__)

QUICK = "a quick look: gap and samples are of less work, too; compare quick ones only"


class Findings(NamedTuple):
    """The results of an evaluation."""

    values: Values  # by their TensorBoard tags
    table: str
    left_out: dict[str, str]  # the measures that do not apply, with the reason
    failed: dict[str, str]  # those that went wrong, with the error
    written: bool  # into the run's folder


class Evaluation:
    """Which measures are taken, and with how much effort. `metrics=None` means all that apply, `images=None` all."""

    def __init__(self, metrics: Sequence[str] | None, images: int | None, samples: int, method: str = "importance"):
        self.names = select(metrics or ())
        self.effort = Effort(EVERY if images is None else images, samples, method)

    def __call__(self, subject: Subject, folder: Path, step: int, epoch: int) -> Findings:
        """Measure the model of this training step and epoch, and write the values into its run's folder.

        Other values of an earlier evaluation of the same weights are kept. Each measure's values are written at once,
        because the next one may be stopped. A measure that goes wrong and a folder that cannot be
        written to are reported and end nothing: the run is trained, and the other values are right.
        """
        path = folder / EVALUATION
        before = read_json(path) or {}
        kept = before if before.get("step") == step else {}
        values: Values = {}
        left_out, failed = {}, {}
        writable = True
        log.info("measuring %s", ", ".join(self.names))  # the first of them may take a minute
        with bar("measuring", len(self.names)) as measuring:
            for name in self.names:
                measuring.set_description_str(f"measuring {name}")
                start = time.perf_counter()
                try:
                    with unmasked():
                        found = measure(subject, name)
                except NotApplicableError as reason:
                    left_out[name] = str(reason)
                    continue
                except Exception as error:
                    failed[name] = " ".join(f"{type(error).__name__}: {error}".split())
                    log.warning("the measure %s failed (%s)", name, failed[name], exc_info=True)
                    continue
                finally:
                    measuring.update()
                values |= {f"test/{key}": value for key, value in found.items()}
                writable = writable and _write(path, kept | {"epoch": epoch, "step": step} | values)
                log.info("%s: %.1f s", name, time.perf_counter() - start)
        written = bool(values) and writable
        rows = measured.rows({key.removeprefix("test/"): value for key, value in values.items()})
        notes = measured.notes(rows)
        if subject.effort.is_quick and values.keys() & {"test/gap_images", "test/samples_images"}:
            notes.append(QUICK)
        notes += [f"left out: {name} ({reason})" for name, reason in left_out.items()]
        notes += [f"failed: {name} ({error})" for name, error in failed.items()]
        if written:
            notes.append(f"written to {relative(path)}")
        head = f"{subject.data.name}: {relative(folder)}, weights of epoch {epoch}"
        return Findings(values, "\n".join([head, *measured.text(rows), *notes]), left_out, failed, written)


def _write(path: Path, content: Mapping[str, float]) -> bool:
    """Write the values; returns whether the folder allows it."""
    try:
        write_json(path, content)
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise
        log.warning("%s: cannot be written (%s), so the table is all there is", relative(path), error.strerror or error)
        return False
    return True
