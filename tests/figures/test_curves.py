import numpy as np
import pytest

from vae.figures.curves import losses


def history(epochs):
    rows = []
    for epoch in range(1, epochs + 1):
        values = {"recon": 150 / epoch, "kl": float(epoch), "total": 150 / epoch + epoch}
        rows.append(
            {"epoch": epoch, **{f"{p}/{t}": v + (p == "val") for p in ("train", "val") for t, v in values.items()}}
        )
    return rows


@pytest.mark.parametrize("epochs", [1, 2, 30, 1000])
def test_losses_show_every_epoch_and_the_best(check, epochs):
    figure = check(losses(history(epochs), "mnist · latent_dim 2 · isotropic prior · β 1 · epoch 30"))
    assert [axes.get_title() for axes in figure.axes] == ["total", "recon", "kl"]
    total = figure.axes[0]
    training, validation, best = total.lines
    assert len(training.get_xdata()) == epochs and training.get_ydata()[0] == 151 and validation.get_ydata()[0] == 152
    expected = min(row["val/total"] for row in history(epochs))
    assert np.isclose(best.get_ydata()[0], expected) and best.get_label() == f"best: {expected:.2f}"
    assert total.get_ylabel() == "nats per image" and all(axes.get_xlabel() == "epoch" for axes in figure.axes)
    assert all(float(tick).is_integer() for tick in total.get_xticks())
