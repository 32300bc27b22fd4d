"""A sweep's jobs in one process, those of one shape trained as one; what they do is in `vae.training.lanes`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, configure_log, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from vae.common import signals, terminal
from vae.runs import sweep
from vae.runs.launching import config_of_job
from vae.settings.alike import in_groups
from vae.settings.config import plain, without_hydra


class TogetherLauncher(Launcher):
    """Trains jobs whose steps differ in nothing but numbers as one, `at_once` at a time, and others as always."""

    def __init__(self, at_once: int | None):
        if at_once is not None and at_once < 1:
            raise ValueError(
                f"hydra.launcher.at_once={at_once}: must be an integer of at least 1, or null for all that fit"
            )
        self.at_once = at_once

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        setup_globals()
        configs = [
            config_of_job(self.hydra_context, self.config, overrides, number)
            for number, overrides in enumerate(job_overrides, initial_job_idx)
        ]
        configure_log(configs[0].hydra.job_logging, self.config.hydra.verbose)  # once: it closes the files of jobs
        groups, reasons = in_groups([plain(without_hydra(config)) for config in configs])
        sweep.announce_groups(groups, reasons)
        found: dict[int, JobReturn] = {}
        before = HydraConfig.instance().cfg
        try:
            for group in groups:
                found |= zip(group, self._train([configs[place] for place in group]), strict=True)
        finally:
            HydraConfig.instance().cfg = before
            configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        return [found[place] for place in range(len(configs))]

    def _train(self, configs: Sequence[DictConfig]) -> list[JobReturn]:
        jobs = [partial(self._job, config) for config in configs]
        if len(jobs) == 1:
            return [jobs[0]()]
        terminal.say_that_torch_is_imported()
        with signals.noted():
            from vae.training.lanes import Lanes

        outcomes = Lanes(self.at_once).train(jobs)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):  # no error of a job, which Hydra keeps for itself
                raise outcome
        return outcomes

    def _job(self, config: DictConfig) -> JobReturn:
        return run_job(
            hydra_context=self.hydra_context,
            task_function=self.task_function,
            config=config,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
            configure_logging=False,
        )
