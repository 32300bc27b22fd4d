import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex

from vae.evaluation.geometry import ellipse
from vae.figures import style, theory
from vae.figures.theory import Candidate, Checked, Estimates, Plane

ROUND = ellipse(torch.zeros(2), torch.eye(2), 1)
NOTE = "a toy"


def words(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


@pytest.mark.parametrize(("rows", "columns"), [(1, 2), (1, 4), (2, 3)])
def test_planes_are_round_and_rows_share_their_limits(check, rows, columns):
    def plane(i, j):
        lines = [("prior", ROUND), ("posterior", (i + 1) * ROUND + j)]
        return Plane(f"row {i}\ncolumn {j}", lines, torch.randn(50, 2), torch.rand(50))

    grid = [[plane(i, j) for j in range(columns)] for i in range(rows)]
    figure = check(theory.planes(grid, [(f"x{i}", f"y{i}") for i in range(rows)], note=NOTE))
    assert len(figure.axes) == rows * columns
    for i in range(rows):
        of_row = figure.axes[i * columns : (i + 1) * columns]
        assert len({(axes.get_xlim(), axes.get_ylim()) for axes in of_row}) == 1
        assert [axes.get_ylabel() for axes in of_row] == [f"y{i}"] + [""] * (columns - 1)
        for j, axes in enumerate(of_row):
            (x0, x1), (y0, y1), box = axes.get_xlim(), axes.get_ylim(), axes.get_window_extent()
            assert np.isclose((x1 - x0) / box.width, (y1 - y0) / box.height)
            assert axes.get_title(loc="left") == f"row {i}\ncolumn {j}" and axes.get_xlabel() == f"x{i}"
            assert np.allclose(axes.lines[1].get_xydata(), (i + 1) * ROUND + j)
            assert np.allclose(axes.collections[0].get_offsets(), grid[i][j].points)
            assert x0 <= j - i - 1 and y1 >= j + i + 1
            assert [to_hex(line.get_color()) for line in axes.lines] == [style.PRIOR, style.ACCENT.lower()]
    assert words(figure.axes[columns - 1]) == ["prior", "posterior"]


def test_points_have_the_shades_of_their_values():
    plane = Plane("", [("q", ROUND)], torch.zeros(2, 2), torch.tensor([0.0, 1.0]))
    (axes,) = theory.planes([[plane]], [("x", "y")], "gray").axes
    assert [to_hex(shade) for shade in np.asarray(axes.collections[0].get_facecolor())] == ["#000000", "#ffffff"]


def test_convergence_shows_medians_bands_and_the_truth(check):
    values = torch.randn(3, 101)
    each = [
        Estimates(f"panel {i}", {"wide": values + i, "narrow": 0.1 * values + i}, float(i), (-3.0, 4.0)) for i in (0, 1)
    ]
    figure = check(theory.convergence(each, (1, 10, 100), "exact", ("draws", "nats"), NOTE))
    for i, axes in enumerate(figure.axes):
        wide, narrow, truth = axes.lines
        assert np.allclose(wide.get_ydata(), values.median(1).values + i) and truth.get_ydata()[0] == i
        assert np.allclose(narrow.get_ydata(), 0.1 * values.median(1).values + i)
        band = axes.collections[0].get_datalim(axes.transData)
        low, high = np.quantile(values, [0.05, 0.95], axis=1)
        assert np.isclose(band.y0, low.min() + i) and np.isclose(band.y1, high.max() + i)
        assert axes.get_xscale() == "log" and axes.get_ylim() == (-3, 4) and axes.get_title() == f"panel {i}"
    assert words(figure.axes[0]) == ["exact", "wide", "narrow"]


def test_bounds_reach_from_each_elbo_to_the_evidence(check):
    z = torch.linspace(-4, 4, 200)
    density = (-0.5 * z.square()).exp()
    elbos = (-5.3, -4.2, -3.1)
    candidates = [Candidate(f"stand-in {i}", density / (i + 1), elbo) for i, elbo in enumerate(elbos)]
    figure = check(theory.bounds(z, density, candidates, -2.5, NOTE))
    left, right = figure.axes
    assert [np.allclose(line.get_ydata(), density / (i + 1)) for i, line in enumerate(left.lines)] == [True] * 3
    assert [bar.get_y() for bar in right.patches] == pytest.approx(elbos)
    assert [bar.get_y() + bar.get_height() for bar in right.patches] == pytest.approx([-2.5] * 3)
    said = [text.get_text() for text in right.texts]
    assert "ELBO −5.30\ngap 2.80" in said and "log p(x) = −2.50" in said
    assert [label.get_text() for label in right.get_xticklabels()] == [f"stand-in {i}" for i in range(3)]


@pytest.mark.parametrize("logarithmic", [False, True])
def test_checked_formulas_are_lines_and_measurements_dots(check, logarithmic):
    x, at = np.geomspace(1, 100, 50), np.array([1.0, 10.0, 100.0])
    series = [Checked(f"λ = {i}", x, i * x, at, i * at + 1) for i in (1, 2, 4)]
    figure = check(theory.checked(series, ("β", "nats"), ("log", "log" if logarithmic else "linear"), NOTE))
    (axes,) = figure.axes
    for i, each in zip((0, 2, 4), series, strict=True):
        line, dots = axes.lines[i : i + 2]
        assert np.allclose(line.get_ydata(), each.formula) and line.get_marker() == "None"
        assert np.allclose(dots.get_ydata(), each.measured) and dots.get_linestyle() == "None"
        assert line.get_color() == dots.get_color()
    assert axes.get_yscale() == ("log" if logarithmic else "linear") and axes.get_xscale() == "log"
    assert words(axes) == ["formula", "measured", "λ = 1", "λ = 2", "λ = 4"]


def test_fits_are_drawn_over_their_density(check):
    z = np.linspace(-4, 4, 201)
    p = np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)
    chosen = [("its own", 0.0, 1.0), ("narrow", -1.0, 0.5), ("wide", -0.0, 2.0)]
    figure = check(theory.fits(z, p, chosen, note=NOTE))
    for axes, (name, mean, deviation) in zip(figure.axes, chosen, strict=True):
        x, y = axes.lines[0].get_data()
        assert axes.get_title(loc="left") == name or axes.get_title() == name
        assert x[y.argmax()] == pytest.approx(mean, abs=0.05)
        assert y.max() == pytest.approx(1 / (deviation * np.sqrt(2 * np.pi)), rel=0.01)
    assert np.allclose(figure.axes[0].lines[0].get_ydata(), p)
    assert [axes.texts[0].get_text() for axes in figure.axes][1:] == ["−1.00 ± 0.50", "0.00 ± 2.00"]
