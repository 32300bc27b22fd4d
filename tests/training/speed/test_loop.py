import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loops.training_epoch_loop import _TrainingEpochLoop
from torch.utils.data import DataLoader

from vae.training.speed.loop import HOOKS, StraightLoop, overrides, straighten


class Linear(pl.LightningModule):
    """y = w x, to be taught to be 0, with a learning rate that falls by steps."""

    def __init__(self, fused):
        super().__init__()
        self.fused = fused
        self.w = torch.nn.Parameter(torch.linspace(1, 3, 4))

    def training_step(self, batch, batch_idx):
        return {"loss": (self.w * batch).square().sum(), "batch": batch}

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters(), lr=0.1, fused=self.fused)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.9**step)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class Watch(pl.Callback):
    """What is called when, with the state then."""

    def __init__(self):
        self.seen = []


def _watching(name):
    def hook(self, trainer, pl_module, *arguments):
        gradient = None if pl_module.w.grad is None else pl_module.w.grad.tolist()
        state = (trainer.global_step, trainer.current_epoch, pl_module.w.tolist(), gradient)
        self.seen.append((name, *state, *map(_plain, arguments)))

    return hook


def _plain(argument):
    if isinstance(argument, dict):
        return {key: value.tolist() for key, value in argument.items()}
    return argument.tolist() if isinstance(argument, torch.Tensor) else str(type(argument))


for _name in HOOKS:
    setattr(Watch, _name, _watching(_name))


def fitted(folder, straight, fused, **arguments):
    """The calls, and the last checkpoint's content."""
    torch.manual_seed(0)
    watch = Watch()
    trainer = pl.Trainer(
        default_root_dir=folder, max_epochs=2, callbacks=[watch, pl.Callback()], accelerator="cpu", logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, **arguments,
    )  # fmt: skip
    if straight:
        straighten(trainer)
        assert type(trainer.fit_loop.epoch_loop) is StraightLoop
    trainer.fit(Linear(fused), DataLoader(torch.rand(5, 4), 2))  # type: ignore[arg-type]
    trainer.save_checkpoint(folder / f"{straight}.ckpt")
    return watch.seen, torch.load(folder / f"{straight}.ckpt", weights_only=False)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize(
    "arguments",
    [{}, {"gradient_clip_val": 0.5}, {"gradient_clip_val": 0.1, "gradient_clip_algorithm": "value"}],
    ids=["plain", "norm", "value"],
)
def test_does_what_lightnings_own_loop_does(tmp_path, arguments, fused):
    (calls, checkpoint), (own_calls, own_checkpoint) = (
        fitted(tmp_path, straight, fused, **arguments) for straight in (True, False)
    )
    assert calls == own_calls
    assert [name for name, *_ in calls[: len(HOOKS)]] == list(HOOKS)
    for key in ("epoch", "global_step", "optimizer_states", "lr_schedulers"):
        assert str(checkpoint[key]) == str(own_checkpoint[key])


def test_only_hooks_that_do_something_are_called():
    assert all(overrides(Watch(), name) and not overrides(pl.Callback(), name) for name in HOOKS)


@pytest.mark.parametrize(
    "arguments",
    [
        {"accumulate_grad_batches": 2},
        {"precision": "bf16-mixed"},
        {"profiler": "simple"},
        {"val_check_interval": 0.5},
    ],
)
def test_what_it_cannot_do_is_left_to_lightning(arguments):
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, **arguments)
    straighten(trainer)
    assert type(trainer.fit_loop.epoch_loop) is _TrainingEpochLoop
