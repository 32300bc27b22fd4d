"""Sweeps: the jobs, which of them are done, how far they are and what came out. Imports no torch."""

from __future__ import annotations

import logging
import re
import shlex
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict

from vae.common.files import in_shell, read_json, relative, replacing, write_json
from vae.common.signals import Interrupted, behind
from vae.common.terminal import fitted
from vae.runs.launching import visible_gpus
from vae.runs.record import held, read_status
from vae.runs.results import Run, find_runs, results_table, run_folders
from vae.settings.compose import program
from vae.settings.config import check, fingerprint, is_place, may_change, plain, quoted, without_hydra
from vae.settings.errors import explain
from vae.settings.machine import check_machine

log = logging.getLogger(__name__)

PLAN = "sweep.json"


class Job(NamedTuple):
    """One combination of a sweep's values, with its folder inside the sweep's."""

    overrides: Sequence[str]
    label: str  # the overrides that distinguish it from the other jobs
    folder: str
    done: bool

    @property
    def launched(self) -> list[str]:
        """Hydra's overrides to train it there."""
        return [*self.overrides, f"hydra.sweep.subdir={quoted(self.folder)}"]


def plan(
    folder: Path,
    combinations: Sequence[Sequence[str]],
    compose: Callable[[list[str]], DictConfig],
    here: bool = True,
) -> list[Job]:
    """Every job of a sweep, checked; jobs that `folder` holds already are found by their configuration.

    A combination that comes to the same configuration as an earlier one is left out. `here` is false where jobs run on
    other machines.
    """
    composed: dict[str, tuple[Sequence[str], DictConfig, dict[str, Any]]] = {}
    for overrides in combinations:
        cfg = compose(list(overrides))
        own = without_hydra(cfg)
        check(own, overrides)
        config = plain(own)
        composed.setdefault(fingerprint(config, is_place), (overrides, cfg, config))

    existing = jobs_in(folder)
    found = _matches([config for *_, config in composed.values()], existing)
    number = 1 + max((int(match[0]) for name in existing if (match := re.match(r"\d+(?=_|$)", name))), default=-1)
    varying = _varying(combinations)
    differing = varying | _varying([*combinations, *(status.get("overrides", []) for status in existing.values())])
    jobs: dict[str, Job] = {}
    for (overrides, cfg, config), name in zip(composed.values(), found, strict=True):
        done = False
        if name is not None:
            done = existing[name]["state"] == "completed" and existing[name]["config"]["epochs"] == config["epochs"]
        else:
            with open_dict(cfg):
                cfg.hydra.job.num = number
                cfg.hydra.job.override_dirname = _dirname(cfg, overrides, differing)
            name = str(cfg.hydra.sweep.subdir)
            number += 1
            _refuse_taken(name, jobs, existing)
        if here and not done:
            check_machine(without_hydra(cfg), visible_gpus)
        label = " ".join(text for text in overrides if text.partition("=")[0] in varying)
        jobs[name] = Job(overrides, label, name, done)
    return list(jobs.values())


def jobs_in(folder: Path) -> dict[str, dict[str, Any]]:
    """The status of every job in a sweep's folder by its name. A job begun elsewhere, such as a copy, is left out."""
    found = {path: read_status(path) for path in sorted(run_folders(folder))}
    return {
        path.relative_to(folder).as_posix(): status for path, status in found.items() if status["folder"] == path.name
    }


def _matches(wanted: Sequence[dict[str, Any]], existing: Mapping[str, dict[str, Any]]) -> list[str | None]:
    """The job of each configuration; no job serves for two.

    A job also serves if only what may change when a run goes on differs, with no more epochs; exact ones come first.
    """
    found: list[str | None] = [None] * len(wanted)
    free = dict(existing)
    for but in (is_place, may_change):
        hashes = {name: fingerprint(status["config"], but) for name, status in free.items()}
        for i, config in enumerate(wanted):
            config_hash = fingerprint(config, but)
            epochs = {name: status["config"]["epochs"] for name, status in free.items() if hashes[name] == config_hash}
            able = [name for name in epochs if epochs[name] <= config["epochs"]]
            if found[i] is None and able:
                found[i] = longest = max(able, key=lambda name: epochs[name])
                del free[longest]
    return found


def _refuse_taken(name: str, planned: Mapping[str, Job], existing: Mapping[str, object]) -> None:
    """Refuse a folder that another job has."""
    where = f"hydra.sweep.subdir={name}: must be another folder for each job, such as '${{hydra.job.num}}'; "
    if name in planned:
        raise ValueError(f"{where}{planned[name].label or 'another job'} is trained there")
    if name in existing:
        raise ValueError(f"{where}a run with another configuration is there")


@contextmanager
def begun(folder: Path, jobs: Sequence[Job], config: DictConfig) -> Iterator[None]:
    """Hold the sweep's folder, with the plan of its jobs and the settings for going on.

    Writes the sweep's table whatever ends the block; an interruption also says how to go on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with held(folder, "running this sweep"):
        with replacing(folder / "multirun.yaml") as temporary:
            OmegaConf.save(config, temporary)
        rows = [{"folder": job.folder, "label": job.label, "done": job.done} for job in jobs]
        write_json(folder / PLAN, {"started": time.time(), "jobs": sorted(rows, key=lambda row: not row["done"])})
        done = sum(job.done for job in jobs)
        count = "1 job in" if len(jobs) == 1 else f"{len(jobs)} jobs in"
        log.info("%s %s%s", count, relative(folder), f"; {done} are done already" if done else "")
        try:
            yield
        except (Interrupted, Exception) as error:
            if interrupted := behind(error):
                log.warning("the sweep is interrupted; go on with: %s", resume(folder))
                raise interrupted from None
            # The launcher's: those of jobs stand in their folders.
            log.error("the launcher failed: %s", f"{type(error).__name__}: {error}".splitlines()[0])
        finally:
            write_results(folder)


def announce(folder: Path, name: str) -> None:
    """Say on the terminal which job of a sweep begins, and how long the rest may take."""
    content = read_json(folder / PLAN)
    jobs = content["jobs"] if content else []
    position = next((i for i, job in enumerate(jobs) if job["folder"] == name), None)
    if content is None or position is None:  # another sweeper's, which chooses its jobs as it goes
        log.info("job %s", name)
        return
    parts = [f"job {position + 1} of {len(jobs)}", jobs[position]["label"]]
    todo = [job["folder"] for job in jobs if not job["done"]]
    ended = [read_status(folder / name).get("ended") or "1970-01-01" for name in todo]
    finished = sum(datetime.fromisoformat(at).timestamp() >= int(content["started"]) for at in ended)
    if finished:  # the rate holds for jobs one after the other and side by side
        seconds = (time.time() - content["started"]) / finished * (len(todo) - finished)
        parts.append(f"about {duration(seconds)} left")
    log.info(" · ".join(part for part in parts if part))


def announce_groups(groups: Sequence[Sequence[int]], reasons: Collection[str]) -> None:
    """Say on the terminal how many jobs are trained together, and why some are not."""
    sizes = [len(group) for group in groups if len(group) > 1]
    alone = len(groups) - len(sizes)
    if sizes:
        log.info("together: %s jobs", " and then ".join(map(str, sizes)))
    if alone:
        why = f": {'; '.join(reasons)}" if reasons else ", as no other has steps of its shape"
        log.info("one by one: %d %s%s", alone, "job" if alone == 1 else "jobs", why)


def announce_waves(count: int, at_once: int) -> None:
    """Say on the terminal that not all jobs of a group fit at once."""
    log.info("%d of %d at a time", at_once, count)


def announce_slow(cores: int) -> None:
    """Say on the terminal that jobs are better spread over the cores than trained together."""
    log.info("on a CPU hydra/launcher=joblib is faster: here it has %d cores", cores)


def told_apart_by(folder: Path) -> list[str]:
    """The keys by which the sweep of a job in this folder tells its jobs apart; none outside a sweep."""
    content = read_json(folder.parent / PLAN)
    labels = {job["folder"]: job["label"] for job in content["jobs"]} if content else {}
    return [text.partition("=")[0] for text in labels.get(folder.name, "").split()]


def report(metrics: Mapping[str, Any]) -> None:
    """Say on the terminal what came out of a job."""
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
    """`results.csv` and `results.md` of all runs in a sweep's folder, if there are any."""
    runs = find_runs([folder / name for name in jobs_in(folder)])
    if runs:
        table = results_table(runs)
        for name, text in (("results.csv", table.csv()), ("results.md", table.markdown())):
            with replacing(folder / name) as temporary:
                temporary.write_text(text, encoding="utf-8")
    return runs


class Results(Callback):
    """Hydra callback: ends the sweep of any sweeper with a table and a true exit status."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        folder = Path(config.hydra.sweep.dir)
        try:
            runs = write_results(folder)
            if runs:
                steps = f"sweep      {relative(folder)}\ncompare    python scripts/compare.py {in_shell(folder)}"
                print(fitted(f"{results_table(runs).text()}\n{steps}", sys.stdout))
            completed = [run.folder.name for run in runs if run.state == "completed"]
            wanted = _planned(folder) if (folder / PLAN).exists() else [run.folder.name for run in runs]
        except Exception as error:  # Hydra turns a callback's exceptions into warnings
            sys.exit(f"error: {explain(error)}")
        if bad := sum(name not in completed for name in wanted):
            sys.exit(f"error: {bad} of {len(wanted)} jobs not completed; to try again: {resume(folder)}")


def _planned(folder: Path) -> list[str]:
    content = read_json(folder / PLAN)
    return [job["folder"] for job in content["jobs"]] if content else []


def resume(folder: Path) -> str:
    """The command to go on with a run or a sweep."""
    return f"{program()} {shlex.quote(f'resume={relative(folder)}')}"


def _varying(combinations: Sequence[Sequence[str]]) -> set[str]:
    """The keys that differ between jobs, or that only some of them have."""
    given = [dict(text.partition("=")[::2] for text in overrides) for overrides in combinations]
    keys = {key for each in given for key in each}
    return {key for key in keys if len({each.get(key) for each in given}) > 1}


def _dirname(cfg: DictConfig, overrides: Sequence[str], differing: Collection[str]) -> str:
    """Hydra's `override_dirname` of a job, without what is the same in all; of a single job with everything."""
    without = OmegaConf.select(cfg, "hydra.job.config.override_dirname.exclude_keys") or []
    named = [text for text in overrides if text.partition("=")[0] not in without]
    return ",".join(sorted(text for text in named if not differing or text.partition("=")[0] in differing))
