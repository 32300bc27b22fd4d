"""A sweep's jobs as Ray tasks.

Hydra's own plugin for Ray takes the same settings, but needs older packages than the rest of the program uses.
"""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, configure_log, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from vae.common import signals
from vae.common.signals import Interrupted
from vae.runs.launching import config_of_job

# What Ray reads when it is imported: no reports to its makers, and every line of the jobs as it is.
ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_COLOR_PREFIX": "0", "RAY_DEDUP_LOGS": "0"}


class RayLauncher(Launcher):
    """Runs jobs where Ray has room for them: on this machine, or on the cluster at `ray.init.address`."""

    def __init__(self, ray: DictConfig):
        if importlib.util.find_spec("ray") is None:
            raise ModuleNotFoundError("No module named 'ray'", name="ray")
        self.settings: dict[str, Any] = OmegaConf.to_container(ray, resolve=True)  # type: ignore[assignment]

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        import ray

        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        if not ray.is_initialized():  # a sweeper may launch one batch after another
            init = dict(self.settings["init"])
            if init["address"] != "local":  # a running cluster has its own
                init.pop("object_store_memory", None)
            ray.init(**init)
        remote = ray.remote(**needs(self.settings["remote"], ray.cluster_resources()))(job)
        state = Singleton.get_state()
        tasks = []
        for number, overrides in enumerate(job_overrides, initial_job_idx):
            config = config_of_job(self.hydra_context, self.config, overrides, number)
            tasks.append(remote.remote(self.hydra_context, self.task_function, config, state, str(Path.cwd())))

        stopped: list[int] = []

        def stop(signum: int) -> None:
            stopped.append(signum)
            for task in tasks:
                ray.cancel(task)  # Ctrl+C for the job, which is awaited below

        signals.answer(stop)
        try:
            results = [_result(ray, task) for task in tasks]
        finally:
            signals.answer(signals.interrupt)
        time.sleep(1)  # Ray shows what the jobs print a little later
        if stopped:
            raise Interrupted(stopped[0])
        return results


def needs(remote: dict[str, Any], resources: Mapping[str, float]) -> dict[str, Any]:
    """What one job needs of what the cluster has; where nothing is said of GPUs, one if there is any."""
    return remote if remote["num_gpus"] is not None else remote | {"num_gpus": int("GPU" in resources)}


def job(
    hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig, state: Any, folder: str
) -> JobReturn:
    """One job in a process of Ray's, on any machine."""
    os.chdir(folder)  # paths are relative to where the sweep was started
    setup_globals()
    Singleton.set_state(state)
    HydraConfig.instance().set_config(config)
    try:
        return run_job(
            hydra_context=hydra_context,
            task_function=task_function,
            config=config,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )
    except Interrupted as stop:  # Ray does not carry what is no Exception
        raise KeyboardInterrupt from stop


def _result(ray: Any, task: Any) -> JobReturn:
    """What came out of a job; one whose process was lost has failed, and the others go on."""
    try:
        return ray.get(task)
    except ray.exceptions.RayError as error:
        return JobReturn(status=JobStatus.FAILED, _return_value=error)
