import numpy as np
import pytest

from vae.figures.contact import LEGIBLE, Tile, contact_sheet

NOTE = "mnist · 60 runs"


def picture(width=60, height=40):
    return np.zeros((height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(("rows", "columns"), [(1, 2), (2, 4), (6, 10)])
def test_a_contact_sheet_names_its_rows_and_columns(check, rows, columns):
    tiles = [[Tile(picture(), "total 140.00\nbest of 2: seed=1")] * columns for _ in range(rows)]
    names = [f"backbone.hidden=[{i},256]" for i in range(rows)], [f"beta={i}" for i in range(columns)]
    figure = check(contact_sheet(tiles, *names, NOTE))
    assert len(figure.axes) == rows * columns
    assert [axes.get_title() for axes in figure.axes[:columns]] == names[1]
    assert [text.get_text().replace("\n", "") for text in figure.texts[1:]] == names[0]
    assert all(axes.get_xlabel().startswith("total") for axes in figure.axes)


def test_missing_pictures_are_said_to_be_missing(check):
    figure = check(contact_sheet([[Tile(picture(), "a"), Tile(None, "no run")], [Tile(None, "no picture")] * 2]))
    assert [text.get_text() for axes in figure.axes for text in axes.texts] == ["no run", "no picture", "no picture"]


def test_wide_pictures_get_wide_columns_and_a_last_row_may_be_short():
    figure = contact_sheet([[Tile(picture(60), "a"), Tile(picture(180), "b")], [Tile(picture(60), "c")]])
    boxes = [axes.get_window_extent() for axes in figure.axes]
    assert np.isclose(boxes[1].width, 3 * boxes[0].width) and np.isclose(boxes[0].height, boxes[1].height)
    assert len(figure.axes[3].images) == 0 and figure.axes[2].images


def test_a_legend_stands_once_beside_all_tiles(check):
    legend = np.zeros((300, 200, 3), dtype=np.uint8)
    tiles = [[Tile(picture(), "a")] * 3] * 2
    figure = check(contact_sheet(tiles, note=NOTE, legend=legend, legend_dpi=200))
    axes = figure.axes
    (beside,) = [each for each in axes if each.images and each.images[0].get_array().shape[:2] == (300, 200)]
    box = beside.get_window_extent()
    assert len(axes) == 7 and np.allclose([box.width, box.height], [figure.dpi * 1.0, figure.dpi * 1.5])
    assert all(each.get_window_extent().x1 < box.x0 for each in axes if each is not beside)
    assert box.x1 < figure.bbox.x1


def test_tiles_stay_legible_however_many():
    figure = contact_sheet([[Tile(picture(), "a")] * 10] * 6)
    assert figure.axes[0].get_window_extent().width >= 0.99 * LEGIBLE * figure.dpi
