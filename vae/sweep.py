"""Sweeps: which jobs there are, which of them are done, how far they are and what came out. Imports no torch."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict

from vae.config import check, fingerprint, plain, quoted, without_hydra
from vae.errors import explain
from vae.files import relative, replacing, write_json
from vae.record import Interrupted, read_status
from vae.results import Run, find_runs, results_table

log = logging.getLogger(__name__)

PLAN = "sweep.json"


class Job(NamedTuple):
    """One combination of a sweep's values, and the folder in the sweep's where it is trained."""

    overrides: Sequence[str]
    label: str  # the overrides that tell it from the other jobs
    folder: str
    done: bool

    @property
    def launched(self) -> list[str]:
        """What Hydra is given to train it there."""
        return [*self.overrides, f"hydra.sweep.subdir={quoted(self.folder)}"]


def plan(folder: Path, combinations: Sequence[Sequence[str]], compose: Callable[[list[str]], DictConfig]) -> list[Job]:
    """Every job of a sweep, each checked; one that `folder` holds already, by the hash of its configuration, is found.

    A combination that comes to the same configuration as an earlier one is left out.
    """
    existing = {path.parent.name: read_status(path.parent) for path in folder.glob("*/status.json")}
    by_hash = {status["config_hash"]: name for name, status in existing.items()}
    next_number = 1 + max((int(name.partition("_")[0]) for name in existing if name[0].isdigit()), default=-1)
    varying = _varying(combinations)
    jobs: list[Job] = []
    planned: set[str] = set()
    for overrides in combinations:
        cfg = compose(list(overrides))
        own = without_hydra(cfg)
        check(own, overrides)
        config_hash = fingerprint(plain(own))
        if config_hash in planned:
            continue
        planned.add(config_hash)
        name = by_hash.get(config_hash)
        done = name is not None and existing[name]["state"] == "completed"
        if name is None:
            with open_dict(cfg):
                cfg.hydra.job.num = next_number
            name = str(cfg.hydra.sweep.subdir)
            next_number += 1
        label = " ".join(text for text in overrides if text.partition("=")[0] in varying)
        jobs.append(Job(overrides, label, name, done))
    return jobs


def begin(folder: Path, jobs: Sequence[Job], config: DictConfig) -> None:
    """Make the sweep's folder with what a job needs to know of the others and what going on with the sweep needs."""
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / "multirun.yaml") as temporary:
        OmegaConf.save(config, temporary)
    rows = [{"folder": job.folder, "label": job.label, "done": job.done} for job in jobs]
    write_json(folder / PLAN, {"started": time.time(), "jobs": sorted(rows, key=lambda row: not row["done"])})
    done = sum(job.done for job in jobs)
    jobs_in = "1 job in" if len(jobs) == 1 else f"{len(jobs)} jobs in"
    log.info("%s %s%s", jobs_in, relative(folder), f"; {done} are done already" if done else "")


@contextmanager
def concluded(folder: Path) -> Iterator[None]:
    """Whatever ends the block, the sweep's table is written and the way to go on is told."""
    try:
        yield
    except (Interrupted, KeyboardInterrupt):
        log.warning("the sweep is interrupted; go on with: %s", _resume(folder))
        raise
    except Exception as error:  # of the launcher: those of jobs stand in their folders
        log.error("the launcher failed: %s", f"{type(error).__name__}: {error}".splitlines()[0])
    finally:
        if any(folder.glob("*/status.json")):
            write_results(folder)


def announce(folder: Path) -> None:
    """Tell on the terminal which job of its sweep begins in `folder`, and how long the rest may take."""
    try:
        content = json.loads((folder.parent / PLAN).read_text(encoding="utf-8"))
    except FileNotFoundError:  # another sweeper's, which chooses its jobs as it goes
        log.info("job %s", folder.name)
        return
    jobs = content["jobs"]
    position = next(i for i, job in enumerate(jobs) if job["folder"] == folder.name)
    parts = [f"job {position + 1} of {len(jobs)}", jobs[position]["label"]]
    todo = [job["folder"] for job in jobs if not job["done"]]
    ended = [read_status(folder.parent / name).get("ended") or "1970-01-01" for name in todo]
    finished = sum(datetime.fromisoformat(at).timestamp() >= int(content["started"]) for at in ended)
    if finished:  # so many jobs ended in this time, whether one after the other or side by side
        seconds = (time.time() - content["started"]) / finished * (len(todo) - finished)
        parts.append(f"about {duration(seconds)} left")
    log.info(" · ".join(part for part in parts if part))


def report(metrics: Mapping[str, Any]) -> None:
    """Tell on the terminal what came out of a job."""
    recon = f"{metrics['test/recon']:.2f}"
    if "test/total" in metrics:
        test = f"{metrics['test/total']:.2f} = {recon} + {metrics['test/kl']:.2f}"
    else:
        test = f"recon {recon}"
    log.info("  test %s   %s", test, duration(metrics["seconds/run"]))


def duration(seconds: float) -> str:
    """12 s, 11 min, 2 h 05 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02} min"


def write_results(folder: Path) -> list[Run]:
    """`results.csv` and `results.md` of all runs in a sweep's folder."""
    runs = find_runs([folder])
    table = results_table(runs)
    for name, text in (("results.csv", table.csv()), ("results.md", table.markdown())):
        with replacing(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return runs


class Results(Callback):
    """Hydra callback: ends a sweep, whatever sweeper chose its jobs, with a table and a true exit status."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        folder = Path(config.hydra.sweep.dir)
        try:
            runs = write_results(folder)
            print(results_table(runs).text())
            print(f"sweep      {relative(folder)}")
            print(f"compare    python scripts/compare.py {relative(folder)}")
            states = {run.folder.name: run.state for run in runs}
            wanted = _planned(folder) if (folder / PLAN).exists() else list(states)
        except Exception as error:  # Hydra turns a callback's exceptions into warnings
            sys.exit(f"error: {explain(error)}")
        if bad := sum(states.get(name) != "completed" for name in wanted):
            sys.exit(f"error: {bad} of {len(wanted)} jobs not completed; to try again: {_resume(folder)}")


def _planned(folder: Path) -> list[str]:
    return [job["folder"] for job in json.loads((folder / PLAN).read_text(encoding="utf-8"))["jobs"]]


def _resume(folder: Path) -> str:
    return f"python train.py resume={relative(folder)}"


def _varying(combinations: Sequence[Sequence[str]]) -> set[str]:
    """The keys whose values are not the same in all jobs."""
    values: dict[str, set[str]] = {}
    for text in (text for overrides in combinations for text in overrides):
        key, _, value = text.partition("=")
        values.setdefault(key, set()).add(value)
    return {key for key, found in values.items() if len(found) > 1}
