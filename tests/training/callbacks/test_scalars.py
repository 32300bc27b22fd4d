import math

import pytest

from vae.training.callbacks.scalars import _refuse_unless_finite


@pytest.mark.parametrize(
    ("names", "whose"),
    [
        (["loss", "total", "critic/loss"], "the critic's loss"),
        (["val/total", "val/critic/accuracy", "val/critic/loss"], "the critic's loss"),
        (["total", "kl", "loss"], "the loss"),
    ],
)
def test_a_loss_that_is_not_finite_is_named_after_its_player(names: list[str], whose: str) -> None:
    with pytest.raises(FloatingPointError, match=rf"^{whose} is no longer finite at step 7 \(epoch 2\): "):
        _refuse_unless_finite(names, [1.0, 2.0, math.nan], 7, 2)
