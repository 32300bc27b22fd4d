"""The LightningModule: wraps model and objective, and does nothing that they or a callback can do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from vae.data.loader import BatchLoader
from vae.model.noise import FRESH, Fresh, SharedNoise
from vae.model.objectives import Batch, Objective, Player
from vae.model.vae import VAE
from vae.training.lane import lane
from vae.training.speed.install import install
from vae.training.step import Descent, Means, Step, Update, eager, without_update
from vae.training.strides import Served, Stride, Strides


class Stepped(NamedTuple):
    """What a step leaves for the callbacks."""

    means: Tensor  # of the module's `names`, (names,): the loss first, all on the device
    size: int  # images of the batch, in all processes
    place: int  # of the batch in the epoch
    is_last: bool  # of the epoch


@runtime_checkable
class StepCallback(Protocol):
    """A callback that is called after every step, where Lightning's own hooks are called once a stride."""

    def on_step_end(self, trainer: pl.Trainer, pl_module: VAEModule, stepped: Stepped) -> None: ...


class VAEModule(pl.LightningModule):
    """Trains `vae` on `objective`; `about` is stored in every checkpoint, see `vae.model.checkpoints`.

    `clip` has the arguments of `clip_gradients`, if gradients are clipped. `by_lightning`: losses and optimisers go
    through Lightning, as several processes and 16 bits need it. `noise` is what all draws come from.
    """

    def __init__(
        self,
        vae: VAE,
        objective: Objective,
        optimizer: Callable[..., Optimizer],
        scheduler: Callable[..., LRScheduler],
        total_steps: int,
        about: Mapping[str, Any],
        clip: Mapping[str, Any] | None = None,
        by_lightning: bool = False,
        noise: Fresh = FRESH,
    ):
        super().__init__()
        self.automatic_optimization = False
        self.vae = vae
        self.objective = objective
        self.names: tuple[str, ...] = ()  # of a step's means; known once there was one
        self.make_optimizer = optimizer
        self.make_scheduler = scheduler
        # Not trainer.estimated_stepping_batches: asking for it here makes Lightning forget, on resuming within an
        # epoch, to hand the loader its position.
        self.total_steps = total_steps
        self.about = about
        self.clip = clip
        self.by_lightning = by_lightning
        self.noise = noise
        self.steps_taken = 0  # trainer.global_step counts those of Lightning's optimisers, of each player's
        self._validation: Step | None = None
        self._validated: list[tuple[Tensor, int]] = []  # means and sizes of this epoch's batches

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        return batch  # the loader keeps its images on the device

    def on_train_start(self) -> None:
        trainer, strides = self.trainer, self.trainer.train_dataloader
        assert isinstance(strides, Strides)
        self._loader = strides.loader
        if strides.loader.first:  # of a run that was stopped within an epoch, maybe with strides of another length
            trainer.fit_loop.epoch_loop.batch_progress.current.completed = strides.done
        self._step = self._made(self._updates(), strides.loader.batch_size)
        self._schedules = [config.scheduler for config in trainer.lr_scheduler_configs]
        self._after_step = [each.on_step_end for each in _all_callbacks(trainer) if isinstance(each, StepCallback)]

    def _made(self, updates: Mapping[str, Update], batch_size: int) -> Step:
        """The step of training by these updates, or of validation without any."""
        step = eager(self.vae, self.objective, updates) if updates else without_update(self.vae, self.objective)
        if among := lane():
            return among.step(step, self.vae, self.objective, updates, batch_size)
        if self.by_lightning and not updates:
            return step  # in 16 bits, which change outside of it
        return install(step, list(updates.values()), (batch_size,), self.device)

    def _updates(self) -> dict[str, Update]:
        wrapped: Any = self.optimizers()
        wrapped = wrapped if isinstance(wrapped, list) else [wrapped]
        updates: dict[str, Update] = {}
        at_once = LightningDescent(self, wrapped)
        for index, player in enumerate(self.objective.players(self.vae)):
            if self.trainer.world_size > 1:
                updates[player.name] = at_once
            elif self.by_lightning:
                updates[player.name] = LightningDescent(self, wrapped[index : index + 1])
            else:
                clip = None if self.clip is None else self._clip
                updates[player.name] = Descent(self.trainer.optimizers[index], clip)
        return updates

    def _clip(self, optimizer: Optimizer) -> None:
        assert self.clip is not None
        self.clip_gradients(optimizer, **self.clip)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        if self.clip is not None:  # here the gradients of 16 bits have their true scale again
            self._clip(optimizer)

    def training_step(self, stride: Stride, stride_index: int) -> None:
        trainer = self.trainer
        is_last_stride = stride_index + 1 == trainer.num_training_batches
        for place, served in stride:
            batch, size = self._batch(trainer.precision_plugin.convert_input(served), self._loader, place)
            means = self._of_all(self._step(batch, self.steps_taken), batch)
            for schedule in self._schedules:
                schedule.step()
            self.steps_taken += 1
            stepped = Stepped(means, size, place, is_last_stride and place == stride.places[-1])
            for after_step in self._after_step:
                after_step(trainer, self, stepped)

    def on_validation_start(self) -> None:
        self._validation = self._validation or self._made({}, self._validation_loader.batch_size)

    def validation_step(self, served: Served, index: int) -> None:
        assert self._validation is not None
        batch, size = self._batch(served, self._validation_loader, index)
        # What is annealed is at its final value, so that epochs can be compared.
        means = self._validation(batch, self.objective.steps)
        self._validated.append((self._of_all(means, batch), size))

    @property
    def _validation_loader(self) -> BatchLoader:
        loader: Any = self.trainer.val_dataloaders
        assert isinstance(loader, BatchLoader)
        return loader

    def _batch(self, served: Served, loader: BatchLoader, place: int) -> tuple[Batch, int]:
        """What this process sees of a batch, and how many images all see."""
        if self.trainer.world_size == 1:
            return Batch(*served, self.noise), len(served[0])
        share = loader.share(place)
        return Batch(*served, SharedNoise(share.images, share.size, self.noise), share.weight), share.size

    def _of_all(self, means: Means, batch: Batch) -> Tensor:
        """The values, whose average over the processes is what the whole batch would give."""
        self.names = means.names
        return means.values if batch.weight is None else means.values * batch.weight

    def on_validation_epoch_end(self) -> None:
        # Once an epoch, because it takes as long as a small batch; and not through the logger, which would add a tag of
        # its own: the Scalars callback writes them.
        count = sum(size for _, size in self._validated)
        means = torch.stack([means * (size / count) for means, size in self._validated]).sum(0)
        self._validated.clear()
        values = {f"val/{name}": value for name, value in zip(self.names, means, strict=True)}
        self.log_dict(values, batch_size=count, logger=False, sync_dist=True)

    def configure_optimizers(self) -> Any:
        return [self._optimised(player) for player in self.objective.players(self.vae)]

    def _optimised(self, player: Player) -> dict[str, Any]:
        optimizer = self.make_optimizer(player.weights, **player.rates)
        scheduler = self.make_scheduler(optimizer, total_steps=self.total_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["vae"] = dict(self.about)
        checkpoint["global_step"] = self.steps_taken

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.steps_taken = checkpoint["global_step"]


class LightningDescent:
    """An update through Lightning, which scales a loss of 16 bits and averages gradients over processes.

    Of several players it waits for all losses: processes count on one backward pass in a step, through all weights.
    """

    def __init__(self, module: VAEModule, optimizers: Sequence[Any]):
        self.module = module
        self.optimizers = optimizers  # wrapped by Lightning
        self.losses: list[Tensor] = []

    def __call__(self, loss: Tensor, weights: Sequence[nn.Parameter] | None) -> None:
        self.losses.append(loss)
        if len(self.losses) < len(self.optimizers):
            return
        total = torch.stack(self.losses).sum() if len(self.losses) > 1 else loss
        self.losses = []
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        with torch.autocast(loss.device.type, enabled=False):  # only the forward pass is of 16 bits
            self.module.manual_backward(total, inputs=weights if len(self.optimizers) == 1 else None)
            for optimizer in self.optimizers:
                optimizer.step()


def _all_callbacks(trainer: pl.Trainer) -> list[pl.Callback]:
    """In the order in which Lightning calls them: those that save come last."""
    return trainer.callbacks  # type: ignore[attr-defined]
