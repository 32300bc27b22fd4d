import logging
from types import SimpleNamespace

import pytest

from vae.training.callbacks.collapse import Collapse


@pytest.mark.parametrize(
    ("kl", "told_after"),
    [
        ([0.05, 0.02, 0.01, 0.01, 0.01], [3]),  # once, and not before it has lasted
        ([5.0, 0.05, 0.05, 0.05], [4]),
        ([0.05, 0.05, 0.2, 0.05, 0.05], []),
        ([3.0, 4.0, 5.0, 6.0], []),
    ],
)
def test_a_collapse_that_lasts_is_told_once(
    caplog: pytest.LogCaptureFixture, kl: list[float], told_after: list[int]
) -> None:
    scalars = SimpleNamespace(history=[])
    watch = Collapse(scalars)  # type: ignore[arg-type]
    told = []
    for epoch, value in enumerate(kl):
        scalars.history.append({"val/kl": value})
        with caplog.at_level(logging.WARNING):
            watch.on_train_epoch_end(SimpleNamespace(current_epoch=epoch), None)  # type: ignore[arg-type]
        told += [epoch + 1] * len(caplog.records)
        for record in caplog.records:
            assert f"after epoch {epoch + 1}" in record.getMessage() and "free_bits" in record.getMessage()
        caplog.clear()
    assert told == told_after
