"""Measure finished runs: likelihood, use and structure of the latent space, quality of samples, disentanglement."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import installed  # noqa: F401

from vae.common.files import relative
from vae.common.logs import to_terminal
from vae.common.terminal import fitted
from vae.entry.programs import described, ending_in_one_line, positive, save_picture
from vae.runs import card
from vae.runs.results import find_runs
from vae.settings.ranges import METHODS

if TYPE_CHECKING:
    from vae.study.evaluate import Findings
    from vae.study.subject import Subject
    from vae.training.tensorboard import RunLogger

SCORES = "curves/anomaly_scores"  # the picture's tag

EXAMPLES = """
examples:
  python scripts/evaluate.py outputs/runs/2030-01-01/12-00-00-000000
  python scripts/evaluate.py outputs/sweeps/2030-01-01/12-00-00-000000 likelihood structure
  python scripts/evaluate.py best.ckpt likelihood --full
  python scripts/evaluate.py outputs/runs/2030-01-01/12-00-00-000000 likelihood --method ais
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Evaluate what the command line asks for."""
    options = _parser().parse_args(arguments)
    to_terminal()
    failures = []
    with ending_in_one_line():
        runs = _runs(options.run)
        for run in runs:
            found = evaluate(**{**vars(options), "run": run})
            if options.metrics:  # all else is measured and written before it is said what could not be
                missed = found.left_out | found.failed
                failures += [f"{name}: cannot be measured in {run}: {why}" for name, why in missed.items()]
    if failures:
        sys.exit("\n".join(f"error: metric={failure}" for failure in failures))


def evaluate(
    run: Path,
    metrics: Sequence[str],
    images: int | None,
    samples: int,
    method: str,
    full: bool,
    against: str | None,
    data_root: str | None,
    trust: bool,
) -> Findings:
    """Measure one run or checkpoint; writes `evaluation.json` beside its metrics, prints a table, tells TensorBoard."""
    from vae.model import checkpoints, restored
    from vae.settings.config import is_at_mean
    from vae.study.evaluate import Evaluation
    from vae.study.subject import FULL, Effort, Subject
    from vae.training.tensorboard import RunLogger

    if full and method == "ais":
        raise ValueError("--full: must be left out with --method ais, which would take days")
    count = images or METHODS[method]
    effort = FULL if full else Effort(count, samples, method)
    evaluation = Evaluation(metrics or None, effort.images, effort.samples, effort.method)
    checkpoint = checkpoints.read(file := checkpoints.file_of(run))
    source, data = restored.data_of(checkpoint["vae"], data_root, trust)
    model = restored.model_of(checkpoint, trust)
    other, at_mean = _other_data(against) if against else None, is_at_mean(checkpoint["vae"]["config"])
    subject = Subject(model, source, data, effort, other, at_mean)
    folder = checkpoints.folder_of(file)
    step = checkpoint["global_step"]
    found = evaluation(subject, folder, step, checkpoint["epoch"] + 1)
    print(fitted(found.table, sys.stdout))
    logger = RunLogger(folder) if found.written and (folder / "metrics.json").exists() else None
    if logger:
        logger.level(found.values, step)
    if found.written and "test/auroc_latent" in found.values:
        print(f"drawn in {relative(_draw_scores(subject, found.values, checkpoint, folder, logger))}")
    if logger:
        logger.close()
    if found.written and (folder / card.CARD).exists():
        card.write_run(folder)
    return found


def _draw_scores(
    subject: Subject, values: Mapping[str, float], checkpoint: Mapping[str, Any], folder: Path, logger: RunLogger | None
) -> Path:
    """Histograms of the anomaly scores, beside the run's other pictures and for TensorBoard."""
    from PIL import Image

    from vae.figures import anomaly
    from vae.study.scene import small_print

    assert subject.against is not None
    names = {
        "total": "−ELBO, nats",
        "nll": "−log p(x), nats",
        "recon": "−log p(x|z), nats",
        "latent": "distance of the code",
    }
    figure = anomaly.scores(
        {names[key]: pair for key, pair in subject.anomaly_scores.items()},
        [values[f"test/auroc_{key}"] for key in subject.anomaly_scores],
        [f"{subject.data.name}, test", f"{subject.against.name}, test"],
        small_print(checkpoint["vae"], checkpoint["epoch"] + 1),
    )
    path = folder / "figures" / f"{SCORES}.png"
    save_picture(path, figure)
    if logger:
        with Image.open(path) as image:
            logger.image(SCORES, path.read_bytes(), image, checkpoint["global_step"])
    return path


@cache  # once for a whole sweep
def _other_data(name: str) -> Any:
    """The data set of one of the YAMLs under conf/data."""
    from omegaconf.errors import MissingMandatoryValue

    from vae.model.build import build
    from vae.settings.compose import composed, yamls
    from vae.settings.config import plain

    if name not in yamls("data"):
        raise ValueError(f"against={name}: must be one of {', '.join(yamls('data'))}")
    try:
        config = plain(composed(f"data={name}"))
    except MissingMandatoryValue as missing:  # which there is no option for
        raise ValueError(f"against={name}: must be other data, because {missing.full_key} has no default") from None
    return build(config, "data").load()


def _runs(path: Path) -> list[Path]:
    """A checkpoint, a run, or the completed runs of a sweep."""
    if path.is_file() or (path / "checkpoints").is_dir():
        return [path]
    completed = [run.folder for run in find_runs([path]) if run.state == "completed"]
    if not completed:
        raise ValueError(f"{path}: no run in it is completed")
    return completed


def _parser() -> argparse.ArgumentParser:
    parser = described("evaluate.py", __doc__, EXAMPLES)
    parser.add_argument("run", type=Path, help="the folder of a run or of a sweep, or a checkpoint file")
    parser.add_argument("metrics", nargs="*", metavar="metric", help="such as likelihood or structure (all that apply)")
    parser.add_argument("--images", type=positive, help="of the likelihood (1000; 300 by ais); fewer shrink others")
    parser.add_argument("--samples", type=positive, default=500, help="of z for each; of ais the temperatures (500)")
    parser.add_argument(
        "--method",
        choices=tuple(METHODS),
        default="importance",
        help="of the likelihood: importance sampling, or annealed (ais), which needs no encoder and has two bounds",
    )
    parser.add_argument("--full", action="store_true", help="the likelihood of all test images by 5,000 samples")
    parser.add_argument("--against", metavar="DATA", help="data whose images are anomalies, such as strokes")
    parser.add_argument("--data-root", help="where the data are, if not where they were")
    parser.add_argument("--trust", action="store_true", help="build classes that are not of this program")
    return parser


if __name__ == "__main__":
    main()
