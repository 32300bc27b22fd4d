import numpy as np
import pytest

from vae.figures.curves import losses


def history(epochs):
    rows = []
    for epoch in range(1, epochs + 1):
        values = {"recon": 150 / epoch, "kl": float(epoch), "total": 150 / epoch + epoch}
        values = {**values, "loss": values["total"]}
        rows.append(
            {"epoch": epoch, **{f"{p}/{t}": v + (p == "val") for p in ("train", "val") for t, v in values.items()}}
        )
    return rows


@pytest.mark.parametrize("epochs", [1, 2, 30, 1000])
def test_losses_show_every_epoch_and_the_best(check, epochs):
    best_epoch = min(history(epochs), key=lambda row: row["val/total"])["epoch"]
    figure = check(losses(history(epochs), best_epoch, "mnist · latent_dim 2 · isotropic prior · β 1 · epoch 30"))
    assert [axes.get_title() for axes in figure.axes] == ["total", "recon", "kl"]
    total = figure.axes[0]
    training, validation, best = total.lines
    assert len(training.get_xdata()) == epochs and training.get_ydata()[0] == 151 and validation.get_ydata()[0] == 152
    expected = min(row["val/total"] for row in history(epochs))
    assert np.isclose(best.get_ydata()[0], expected) and best.get_label() == f"best: {expected:.2f}"
    assert total.get_ylabel() == "nats per image" and all(axes.get_xlabel() == "epoch" for axes in figure.axes)
    assert all(float(tick).is_integer() for tick in total.get_xticks())


def test_the_ring_is_on_the_loss_where_that_is_no_term(check):
    rows = [row | {"train/loss": 7.0, "val/loss": 9.0 - row["epoch"]} for row in history(5)]
    figure = check(losses(rows, 5))
    assert [axes.get_title() for axes in figure.axes] == ["loss", "total", "recon", "kl"]
    assert [len(axes.lines) for axes in figure.axes] == [3, 2, 2, 2]
    assert figure.axes[0].lines[2].get_label() == "best: 4.00" and figure.axes[0].lines[2].get_xdata()[0] == 5


def test_the_ring_is_at_the_epoch_that_is_reported():
    (axes, *_) = losses(history(5), 3).axes
    assert axes.lines[2].get_label() == "reported: 54.00" and np.asarray(axes.lines[2].get_xdata())[0] == 3


@pytest.mark.parametrize("nats", [1.0, 1234.5, 1e6])
def test_numbers_of_any_length_stay_inside(check, nats):
    rows = [{key: value * (1 if key == "epoch" else nats) for key, value in row.items()} for row in history(5)]
    figure = check(losses(rows, 5, "note"))
    for axes, before in zip(figure.axes, [None, *figure.axes], strict=False):
        box = axes.get_tightbbox()
        assert box.x0 > (0 if before is None else before.get_window_extent().x1)


def test_an_autoencoder_has_one_curve(check):
    keys = {f"{part}/{term}": f"{part}/{'recon' if term == 'loss' else term}" for part in ("train", "val")
            for term in ("loss", "recon")}  # fmt: skip
    rows = [{"epoch": row["epoch"], **{key: row[of] for key, of in keys.items()}} for row in history(5)]
    figure = check(losses(rows, 5))
    assert [axes.get_title() for axes in figure.axes] == ["recon"] and len(figure.axes[0].lines) == 3
