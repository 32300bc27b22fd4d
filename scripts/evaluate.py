"""Measure finished runs: likelihood, use and structure of the latent space, quality of samples, disentanglement."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))  # works from a checkout that is not installed

from vae.files import relative, write_json
from vae.results import find_runs

EXAMPLES = """
examples:
  python scripts/evaluate.py outputs/runs/2030-01-01/12-00-00-000000
  python scripts/evaluate.py outputs/sweeps/2030-01-01/12-00-00-000000 likelihood structure
  python scripts/evaluate.py best.ckpt likelihood --full
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Evaluate what the command line asks for."""
    options = _parser().parse_args(arguments)
    try:
        for run in _runs(options.run):
            evaluate(**{**vars(options), "run": run})
    except (ValueError, OSError, RuntimeError) as error:
        sys.exit(f"error: {error}")


def evaluate(
    run: Path,
    metrics: Sequence[str],
    images: int,
    samples: int,
    full: bool,
    against: str | None,
    data_root: str | None,
    trust: bool,
) -> dict[str, float]:
    """Measure one run or checkpoint; writes `evaluation.json` beside its metrics, prints a table, tells TensorBoard."""
    from vae import checkpoints, measures
    from vae.tensorboard import RunLogger

    names = measures.select(metrics)
    checkpoint = checkpoints.read(file := checkpoints.file_of(run))
    source, data = checkpoints.data_of(checkpoint["vae"], data_root, trust)
    effort = measures.FULL if full else measures.Effort(images, samples)
    other = _other_data(against) if against else None
    subject = measures.Subject(checkpoints.model_of(checkpoint, trust), source, data, effort, other)
    folder = file.parent.parent if file.parent.name == "checkpoints" else file.parent

    values: dict[str, float] = {}
    lines, notes = [], []
    for name in names:
        start = time.perf_counter()
        try:
            found = measures.measure(subject, name)
        except measures.NotApplicableError as reason:
            if metrics:
                raise ValueError(f"metric={name}: cannot be measured here: {reason}") from None
            notes.append(f"left out: {name} ({reason})")
            continue
        values |= {f"test/{key}": value for key, value in found.items()}
        lines += [f"{name:<16}{key:<28}{value:>12.5g}" for key, value in found.items()]
        print(f"{name}: {time.perf_counter() - start:.1f} s", file=sys.stderr, flush=True)

    path = folder / "evaluation.json"
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    write_json(path, before | values)
    if (folder / "metrics.json").exists():
        logger = RunLogger(folder)
        logger.log_metrics(values, checkpoint["global_step"])
        logger.close()
    rule = "─" * max(map(len, lines), default=0)
    print("\n".join([f"{data.name}: {relative(run)}", rule, *lines, rule, *notes, f"written to {relative(path)}"]))
    return values


@cache  # once for a whole sweep
def _other_data(name: str) -> Any:
    """The data set of one of the YAMLs under conf/data."""
    from hydra import compose, initialize_config_dir

    from vae.build import build
    from vae.cli import CONF
    from vae.config import plain
    from vae.schemas import register

    names = sorted(path.stem for path in (CONF / "data").glob("*.yaml"))
    if name not in names:
        raise ValueError(f"against={name}: must be one of {', '.join(names)}")
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return build(plain(compose("config", [f"data={name}"])), "data").load()


def _runs(path: Path) -> list[Path]:
    """A checkpoint, a run, or the completed runs of a sweep."""
    if path.is_file() or (path / "checkpoints").is_dir():
        return [path]
    return [run.folder for run in find_runs([path]) if run.state == "completed"]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="evaluate.py", description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="the folder of a run or of a sweep, or a checkpoint file")
    parser.add_argument("metrics", nargs="*", metavar="metric", help="such as likelihood or structure (all that apply)")
    parser.add_argument("--images", type=_positive, default=1000, help="whose likelihood is estimated (1000)")
    parser.add_argument("--samples", type=_positive, default=500, help="of z for each of these (500)")
    parser.add_argument("--full", action="store_true", help="the likelihood of all test images by 5,000 samples")
    parser.add_argument("--against", metavar="DATA", help="data whose images are anomalies, such as strokes")
    parser.add_argument("--data-root", help="where the data are, if not where they were")
    parser.add_argument("--trust", action="store_true", help="build classes that are not of this program")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be a positive integer")
    return number


if __name__ == "__main__":
    main()
