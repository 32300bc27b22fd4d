"""Loggers beside TensorBoard: Lightning's own, with what a run needs of each to be found and to go on there."""

from __future__ import annotations

import csv
import hashlib
import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from filelock import FileLock
from PIL import Image

from vae.common.signals import unmasked
from vae.model.build import build
from vae.runs.record import read_status
from vae.settings.config import flatten
from vae.settings.errors import explain

log = logging.getLogger(__name__)

LOCAL = "sqlite:///"  # how MLflow calls a store in a file
IDENTITY = "vae.run"  # MLflow's tag by which a run that goes on is found
ENDS = {"completed": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}  # in MLflow's words


class AnyLogger:
    """One of Lightning's loggers, of which nothing else is known."""

    logger: Any

    def __init__(self, name: str, node: Mapping[str, Any], folder: Path, step: int | None) -> None:
        self.key = f"logger.{name}"
        self.node = node
        self.folder = folder
        self.step = step  # after which the run goes on; None where it begins

    def begin(self, config: Mapping[str, Any]) -> None:
        self.logger = self.build()
        self.logger.log_hyperparams(dict(config))

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        self.logger.log_metrics(dict(values), step)

    def image(self, tag: str, image: Image.Image, step: int) -> None:
        """Nothing: Lightning has no common call for pictures."""

    def end(self, state: str) -> None:
        self.logger.finalize("success" if state == "completed" else "failed")

    def build(self, **given: Any) -> Any:
        """Lightning's object; what the program gives makes way for what is configured."""
        configured = {name: value for name, value in self.node.items() if value is not None}
        return build({self.key: given | configured}, self.key)

    @property
    def identity(self) -> str:
        """What the run alone is called, also when it goes on."""
        status = read_status(self.folder)
        text = f"{self.folder.name} {status.get('started')} {status.get('config_hash')}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]


class Csv(AnyLogger):
    """A file in the run's folder."""

    def begin(self, config: Mapping[str, Any]) -> None:
        self.logger = self.build(save_dir=self.folder, name="csv", version="")
        earlier = self._earlier(Path(self.logger.log_dir, "metrics.csv"))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Experiment logs directory")  # it deletes what was there
            self.logger.experiment.metrics.extend(earlier)
        self.logger.log_hyperparams(dict(config))
        self.logger.save()

    def _earlier(self, path: Path) -> list[dict[str, Any]]:
        """The rows up to where the run goes on; a killed process may have written more."""
        if self.step is None or not path.exists():
            return []
        with path.open(newline="", encoding="utf-8") as file:
            rows = [{name: value for name, value in row.items() if value} for row in csv.DictReader(file)]
        return [row | {"step": int(row["step"])} for row in rows if int(row["step"]) <= self.step]


class MLflow(AnyLogger):
    """A run in a store that holds all runs."""

    def begin(self, config: Mapping[str, Any]) -> None:
        from mlflow import MlflowClient

        logging.getLogger("mlflow").setLevel(logging.WARNING)  # it writes to the terminal by itself
        with self._alone():
            client = MlflowClient(self.node["tracking_uri"])
            experiment = _experiment(client, self.node["experiment_name"], self._place())
        found = client.search_runs([experiment], f"tags.`{IDENTITY}` = '{self.identity}'", max_results=1)
        self.going_on = bool(found)
        self.last: dict[str, int] = {}  # step of each metric that is in the store already
        self.logger = self.build(run_name=self.folder.name, run_id=found[0].info.run_id if found else None)
        run = self.logger.run_id
        client.set_tag(run, IDENTITY, self.identity)
        client.update_run(run, status="RUNNING")  # one that goes on has ended before
        known = client.get_run(run).data.params  # which cannot be changed, and are cut after some letters
        self.logger.log_hyperparams({name: str(value) for name, value in flatten(config).items() if name not in known})
        client.log_dict(run, dict(config), "configuration.json")

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        # The store would keep a second value of the same step beside the first, after a killed process.
        super().metrics({name: value for name, value in values.items() if step > self._last(name)}, step)

    def image(self, tag: str, image: Image.Image, step: int) -> None:
        self.logger.experiment.log_image(self.logger.run_id, image, key=tag, step=step)

    def end(self, state: str) -> None:
        self.logger.finalize(ENDS[state])

    @property
    def _store(self) -> Path | None:
        """The file of a local store."""
        address = self.node["tracking_uri"]
        return Path(address.removeprefix(LOCAL)) if address.startswith(LOCAL) else None

    def _alone(self) -> AbstractContextManager[object]:
        """Wait for other jobs that make the tables of a local store, which two of them would make at once."""
        if self._store is None:
            return nullcontext()
        self._store.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(self._store.with_name(f".{self._store.name}.lock"))

    def _place(self) -> str | None:
        """Where pictures are kept: as configured, beside a local store, or where a server keeps them."""
        if self._store is None or self.node["artifact_location"]:
            return self.node["artifact_location"]
        return str(self._store.with_name(f"{self._store.stem}-artifacts"))

    def _last(self, name: str) -> int:
        if self.going_on and name not in self.last:
            history = self.logger.experiment.get_metric_history(self.logger.run_id, name)
            self.last[name] = max((metric.step for metric in history), default=-1)
        return self.last.get(name, -1)


def _experiment(client: Any, name: str, place: str | None) -> str:
    """The number of the experiment, which is made unless it is there."""
    if found := client.get_experiment_by_name(name):
        return found.experiment_id
    try:
        return client.create_experiment(name, place)
    except Exception:
        if found := client.get_experiment_by_name(name):  # another job has made it meanwhile
            return found.experiment_id
        raise


class Wandb(AnyLogger):
    """A run of Weights & Biases, whose parts have one number; `wandb sync` joins them."""

    def begin(self, config: Mapping[str, Any]) -> None:
        import wandb

        wandb.setup(wandb.Settings(silent=True, console="off"))  # the terminal is the program's own
        mode = {"mode": "offline"} if self.node["offline"] else {}  # Lightning says it too late for `setup`
        self.logger = self.build(name=self.folder.name, save_dir=self.folder, id=self.identity, **mode)
        self.logger.log_hyperparams(dict(config))
        if address := self.logger.experiment.url:
            log.info("wandb     %s", address)

    def image(self, tag: str, image: Image.Image, step: int) -> None:
        self.logger.log_image(tag, [image], step)

    def end(self, state: str) -> None:
        self.logger.experiment.finish(exit_code=0 if state == "completed" else 1)


KINDS: Mapping[str, type[AnyLogger]] = {
    "pytorch_lightning.loggers.CSVLogger": Csv,
    "pytorch_lightning.loggers.MLFlowLogger": MLflow,
    "pytorch_lightning.loggers.WandbLogger": Wandb,
}


class Beside:
    """The loggers beside TensorBoard. The run goes on without one that fails."""

    def __init__(self, loggers: Sequence[AnyLogger] = ()) -> None:
        self.loggers = list(loggers)

    @classmethod
    def of(cls, config: Mapping[str, Any], folder: Path, step: int | None) -> Beside:
        """Those of a configuration, for the run in `folder` that goes on after `step`, or begins."""
        nodes = config["logger"].items()
        return cls([KINDS.get(node["_target_"], AnyLogger)(name, node, folder, step) for name, node in nodes])

    def begin(self, config: Mapping[str, Any]) -> None:
        """Open all of them; refuse, in one line, to train where one cannot be opened."""
        for each in self.loggers:
            try:
                each.begin(config)
            except Exception as error:
                raise ValueError(f"{each.key}: cannot be opened: {explain(error)}") from error

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        self._tell(lambda each: each.metrics(values, step))

    def image(self, tag: str, image: Image.Image, step: int) -> None:
        self._tell(lambda each: each.image(tag, image, step))

    def end(self, state: str) -> None:
        """Say what became of the run: completed, failed or interrupted."""
        self._tell(lambda each: each.end(state))

    def _tell(self, tell: Callable[[AnyLogger], None]) -> None:
        for each in list(self.loggers):
            try:
                with unmasked():
                    tell(each)
            except Exception as error:
                log.error("%s failed and is left out from here on: %s", each.key, explain(error), exc_info=error)
                self.loggers.remove(each)
