"""Steps that are played from a recording, beside the same ones taken kernel by kernel: on a GPU, in doubles."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import trained_runs
from matrix import OF_A_STEP, overrides
from models import SHAPE, linear_gaussian
from torch import Tensor
from torch.optim import Adam
from trained_runs import numbers

from vae.model.annealing import Count
from vae.model.objectives import ELBO, Batch, Loss
from vae.model.vae import Terms
from vae.training.run import train_run
from vae.training.speed import install
from vae.training.speed.graph import WARM_UP, Graphed, graphed
from vae.training.step import Descent, Means, Step, eager

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
]

NOT_RECORDED = ["clipped"]  # without a fused Adam


@pytest.mark.parametrize("name", OF_A_STEP)
def test_a_recording_changes_no_number(
    name: str, compose: Callable[..., dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = compose(*overrides(name, "trainer.precision=64-true", "trainer.accelerator=gpu"))
    updated = played(monkeypatch)
    recorded = train_run(settings, tmp_path / "recorded")
    assert (True in updated) == (name not in NOT_RECORDED)
    monkeypatch.setattr(install, "graphed", lambda step, *_: step)
    plain = train_run(settings, tmp_path / "plain")
    # A recorded step has its rate and the weight of what is annealed in single precision; Adam, which divides by the
    # gradient's size, spreads that where there is hardly any.
    assert numbers(recorded) == pytest.approx(numbers(plain), rel=1e-6)
    weights = [trained_runs.weights(tmp_path / name)["state_dict"] for name in ("recorded", "plain")]
    for key, value in weights[0].items():
        assert torch.allclose(value, weights[1][key], rtol=1e-4, atol=1e-4), key


def played(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Of each step that is played from now on, whether it updates something."""
    found: list[bool] = []
    play = Graphed._play
    monkeypatch.setattr(Graphed, "_play", lambda self, *step: (found.append(bool(self.groups)), play(self, *step))[1])
    return found


def test_validation_is_played_too(
    image_run: Callable[..., dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = image_run("epochs=6", "data.val_fraction=0.6", "ema=0.5", "figures=none", "trainer.accelerator=gpu")
    updated = played(monkeypatch)
    recorded = train_run(settings, tmp_path / "recorded")
    assert updated.count(False) == 6 - WARM_UP
    monkeypatch.setattr(install, "graphed", lambda step, *_: step)
    plain = train_run(settings, tmp_path / "plain")
    assert recorded["val/total"] == pytest.approx(plain["val/total"], rel=1e-4)


def made(objective: ELBO) -> tuple[torch.nn.Module, Step, list[Descent]]:
    torch.manual_seed(0)
    model, _, _ = linear_gaussian("isotropic", "diagonal")
    model = model.cuda()
    update = Descent(Adam(list(model.parameters()), lr=0.01, fused=True))
    return model, eager(model, objective, {"model": update}), [update]


def taken(step: Step, sizes: list[int], seed: int = 0) -> list[dict[str, float]]:
    torch.manual_seed(seed)
    images = [torch.rand(size, *SHAPE, dtype=torch.float64).cuda() for size in sizes]
    return [values(step(Batch(x), count)) for count, x in enumerate(images)]


def values(means: Means) -> dict[str, float]:
    return dict(zip(means.names, means.values.tolist(), strict=True))


DEVICE = torch.device("cuda")
SIZES = [3, 5, 5, 2, 5, 5, 5, 5, 2, 5, 5, 5, 3]


def test_batches_of_other_sizes_are_taken_as_they_are_in_their_turn() -> None:
    model, step, updates = made(ELBO(2.0))
    other, plain, _ = made(ELBO(2.0))
    playing = graphed(step, updates, (5,), device=DEVICE)
    assert isinstance(playing, Graphed)
    for found, expected in zip(taken(playing, SIZES), taken(plain, SIZES), strict=True):
        assert found == pytest.approx(expected, rel=1e-6)
    for weights in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.allclose(*weights, rtol=1e-6)
    assert updates[0].optimizer.param_groups[0]["lr"] == 0.01  # and no tensor, for checkpoints
    assert not updates[0].optimizer.param_groups[0]["capturable"]


def test_what_an_optimiser_is_set_to_on_the_way_is_heeded() -> None:
    def trained(recorded: bool) -> list[Tensor]:
        model, step, updates = made(ELBO(1.0))
        (group,) = updates[0].optimizer.param_groups
        step = graphed(step, updates, (5,), device=DEVICE) if recorded else step
        torch.manual_seed(0)
        for count in range(4 * WARM_UP):
            group["lr"] = 0.01 / (1 + count)
            group["betas"] = (0.9, 0.999) if count < 2 * WARM_UP else (0.5, 0.9)
            step(Batch(torch.rand(5, *SHAPE, dtype=torch.float64).cuda()), count)
        return list(model.parameters())

    for found, expected in zip(trained(True), trained(False), strict=True):
        assert torch.allclose(found, expected, rtol=1e-6)


class Asking(ELBO):
    """Asks for a value of the GPU's."""

    def loss(self, terms: Terms, batch: Batch, step: Count) -> Loss:
        loss = super().loss(terms, batch, step)
        return loss._replace(value=loss.value * (1.0 if loss.value.item() > 0 else 0.5))


def test_a_step_that_cannot_be_recorded_is_taken_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    _, step, updates = made(Asking(1.0))
    _, plain, _ = made(Asking(1.0))
    with caplog.at_level(logging.DEBUG, "vae"):
        found = taken(graphed(step, updates, (5,), device=DEVICE), SIZES)
    assert found == [pytest.approx(expected, rel=1e-6) for expected in taken(plain, SIZES)]
    assert len([line for line in caplog.messages if "not recorded" in line]) == 1
