import logging
from types import SimpleNamespace

import pytest

from vae.training.callbacks.rivalry import Rivalry


@pytest.mark.parametrize(
    ("right", "told_after", "word"),
    [
        ([0.96, 0.97, 0.98, 0.99, 0.99], [3], "has won: it is right in 98 % of all cases"),
        ([0.8, 0.5, 0.51, 0.5, 0.5], [4], "tells nothing apart: it is right in 50 % of all cases"),
        ([0.96, 0.97, 0.9, 0.96, 0.97], [], ""),
        ([0.7, 0.5, 0.6, 0.5], [], ""),
        ([None, None, None, None], [], ""),  # without a critic
    ],
)
def test_a_critic_without_a_rival_is_told_once(
    caplog: pytest.LogCaptureFixture, right: list[float | None], told_after: list[int], word: str
) -> None:
    scalars = SimpleNamespace(history=[])
    watch = Rivalry(scalars)  # type: ignore[arg-type]
    told = []
    for epoch, value in enumerate(right):
        scalars.history.append({} if value is None else {"train/critic/accuracy": value})
        with caplog.at_level(logging.WARNING):
            watch.on_train_epoch_end(SimpleNamespace(current_epoch=epoch), None)  # type: ignore[arg-type]
        told += [epoch + 1] * len(caplog.records)
        for record in caplog.records:
            assert word in record.getMessage() and "objective.critic.lr" in record.getMessage()
            assert f"after epoch {epoch + 1}" in record.getMessage()
        caplog.clear()
    assert told == told_after
