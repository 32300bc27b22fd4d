"""Hydra finds its plugins in this package, and nowhere else; what the sweeper does is in `vae.runs.sweep`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser

from vae.runs import sweep


class ResumableSweeper(BasicSweeper):
    """Hydra's basic sweeper, but all jobs are checked before the first one trains, and none is done twice."""

    def sweep(self, arguments: list[str]) -> Any:
        assert self.hydra_context is not None and self.launcher is not None and self.config is not None
        loader, config = self.hydra_context.config_loader, self.config
        parser = OverridesParser.create(config_loader=loader)
        overrides = parser.parse_overrides([*self._parse_config(), *arguments])
        combinations = [job for batch in self.split_arguments(overrides, None) for job in batch]

        folder = Path(self.config.hydra.sweep.dir)
        here = type(self.launcher).__name__ in ("BasicLauncher", "JoblibLauncher", "TogetherLauncher")
        jobs = sweep.plan(folder, combinations, lambda job: loader.load_sweep_config(config, job), here)
        todo = [job.launched for job in jobs if not job.done]
        # One after another in this process: the launcher keeps all configurations until it returns.
        size = 1 if isinstance(self.launcher, BasicLauncher) else self.max_batch_size
        first = 0
        with sweep.begun(folder, jobs, self.config):
            for batch in self.split_overrides_to_chunks(todo, size) if todo else ():
                # What became of a job stands in its folder; asking Hydra for the value of a failed one would raise.
                self.launcher.launch(batch, initial_job_idx=first)
                first += len(batch)
