"""The command line around Hydra: `resume=`, checks before any work, one-line errors. Imports no torch."""

from __future__ import annotations

import gc
import logging
import os
import sys
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.hydra import Hydra
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from vae.common import signals, terminal
from vae.common.files import relative, replacing
from vae.common.signals import Interrupted
from vae.common.terminal import fitted
from vae.entry.options import in_order
from vae.entry.programs import end_silently
from vae.runs import sweep
from vae.runs.launching import jobs_at_once, visible_gpus
from vae.runs.record import RefusedError, read_status, recorded, refuse_other_configuration
from vae.settings import compose
from vae.settings.compose import CONF
from vae.settings.config import check, plain, quoted, without_hydra
from vae.settings.errors import explain
from vae.settings.machine import check_machine

log = logging.getLogger(__name__)


def prepare() -> None:
    """Give Hydra all that the YAMLs name."""
    compose.prepare()
    OmegaConf.register_new_resolver("jobs_at_once", jobs_at_once, replace=True)


def main() -> None:
    """Run the Hydra application so that whatever goes wrong is one line and an exit status."""
    try:
        _main()
    except SystemExit as end:
        sys.exit(fitted(end.code, sys.stderr) if isinstance(end.code, str) else end.code)
    finally:
        terminal.clear()


def _main() -> None:
    prepare()
    if {"-h", "--help"} & set(sys.argv):
        # Hydra composes every YAML for lists that our help text has no place for, which takes seconds.
        Hydra.format_config_groups = lambda *_: ""  # type: ignore[method-assign]
    user_wants_tracebacks = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises its errors and we word them
    if not sys.stderr.isatty():
        os.environ.setdefault("NO_COLOR", "1")  # Optuna colours what it logs, also in a pipe
    logging.raiseExceptions = False  # a log that cannot be written, on a full disk, is no reason for a traceback
    try:
        signals.heed()
        sys.argv[1:] = replay_resumed(in_order(sys.argv[1:]))
        train_job()
    except Interrupted as stop:
        sys.exit(stop.exit_status)
    except BrokenPipeError:
        end_silently()
    except Exception as error:
        if interrupted := signals.behind(error):
            sys.exit(interrupted.exit_status)
        if user_wants_tracebacks:
            raise
        sys.exit(f"error: {explain(error)}")


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def train_job(cfg: DictConfig) -> float:
    """One job: train what `cfg` says in Hydra's output folder.

    Returns what a search minimises: the validation total of the reported weights in nats, or recon where there is no
    total. The total is comparable between values of β.
    """
    hydra = HydraConfig.get()
    in_sweep = hydra.mode == RunMode.MULTIRUN
    # Not hydra.runtime.output_dir, where a ${ in a folder's name has become an interpolation.
    folder = Path(hydra.runtime.cwd, *((hydra.sweep.dir, hydra.sweep.subdir) if in_sweep else (hydra.run.dir,)))
    # The job before left its weights in a circle of a few objects, which Python would not look for yet.
    gc.collect()
    try:
        if in_sweep:
            sweep.announce(Path(hydra.sweep.dir), str(hydra.sweep.subdir))
        settings = plain(cfg)
        with recorded(folder, settings, _choices(hydra), list(hydra.overrides.task)), signals.heeded():
            _keep(folder / ".hydra", config=cfg, hydra={"hydra": hydra}, overrides=hydra.overrides.task)
            # Again, because another sweeper than ours chooses values as it goes.
            check(cfg, hydra.overrides.task)
            check_machine(cfg, visible_gpus)
            terminal.say_that_torch_is_imported()
            with signals.noted():
                from vae.training.run import train_run  # only now: importing torch takes seconds

            metrics = train_run(settings, folder)
    except Interrupted:
        if not in_sweep:
            log.warning("interrupted; go on with: %s", sweep.resume(folder))
        raise
    except Exception as error:
        message = explain(error)
        if not isinstance(error, RefusedError):
            message += f" (traceback: {relative(folder / 'train.log')})"
        if in_sweep:
            log.error(message)
            raise RuntimeError(message) from None  # one that can travel from one process to another
        # Not an Exception: Hydra would add lines of its own.
        raise SystemExit(f"error: {message}") from error
    if in_sweep:
        sweep.report(metrics)
    return metrics.get("val/total", metrics["val/recon"])


def _keep(folder: Path, **configurations: Any) -> None:
    """Write Hydra's own record: Hydra would do it before the run's folder is held, and not atomically."""
    for name, content in configurations.items():
        with replacing(folder / f"{name}.yaml") as temporary:
            temporary.write_text(OmegaConf.to_yaml(content), encoding="utf-8")


def _choices(hydra: Any) -> dict[str, str]:
    """The YAML chosen in each of the program's own groups."""
    chosen = hydra.runtime.choices
    return {name: chosen[name] for name in sorted(map(str, chosen)) if "/" not in name and chosen[name]}


class CheckBeforeWork(Callback):
    """Hydra callback that refuses a wrong configuration before the run's folder exists."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        try:
            check_run(config)
        except Exception as error:  # Hydra turns a callback's exceptions into warnings
            sys.exit(f"error: {explain(error)}")


def check_run(full: DictConfig) -> None:
    """Refuse wrong values; where the folder holds a run already, refuse another, and leave a completed one alone."""
    cfg = without_hydra(full)
    check(cfg, full.hydra.overrides.task)
    folder = Path(full.hydra.run.dir)  # only now: its name holds what was typed, which may not resolve
    status = read_status(folder)
    if not status:
        check_machine(cfg, visible_gpus)
        return
    config = plain(cfg)
    refuse_other_configuration(folder, status["config"], config)
    if status["state"] == "completed" and config["epochs"] == status["config"]["epochs"]:
        name = relative(folder)
        how = f"To train it further: resume={name} epochs=N with a larger N"
        terminal.clear()
        print(fitted(f"{name} is complete: {config['epochs']} epochs. {how}", sys.stdout))
        sys.exit(0)


def replay_resumed(arguments: list[str]) -> list[str]:
    """Replace `resume=FOLDER` by the overrides and the folder of that run or sweep, so that Hydra composes it again."""
    folders = [text.removeprefix("resume=") for text in arguments if text.startswith("resume=")]
    if not folders:
        return arguments
    given = [text for text in arguments if not text.startswith("resume=")]
    folder = Path(folders[-1])
    if (folder / "multirun.yaml").is_file():
        before = OmegaConf.load(folder / "multirun.yaml").hydra.overrides
        own_folder = ("hydra.sweep.dir=", "hydra.mode=")
        old = [*(text for text in before.hydra if not text.startswith(own_folder)), *before.task]
        where = f"hydra.sweep.dir={quoted(str(folder))}"
        given = ["--multirun", *(text for text in given if text not in ("-m", "--multirun"))]
    elif {"-m", "--multirun"} & set(given):
        raise ValueError(f"resume={folder}: must be the folder of a sweep with --multirun")
    elif status := read_status(folder):
        old, where = status["overrides"], f"hydra.run.dir={quoted(str(folder))}"
    else:
        raise ValueError(
            f"resume={folder}: must be the folder of a run or a sweep, which has status.json or multirun.yaml"
        )
    new_keys = {text.partition("=")[0] for text in given}
    # Options such as --cfg come first: argparse takes none behind overrides.
    return [*given, *(text for text in old if text.partition("=")[0] not in new_keys), where]
