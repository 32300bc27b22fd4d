from itertools import combinations, pairwise

import numpy as np
import pytest
from matplotlib.text import Annotation

from vae.figures.comparison import Mark, SeedMean, curves, rate_distortion, totals
from vae.figures.style import PALETTE

NOTE = "mnist · 60 runs"


def legend(figure):
    return [text.get_text() for each in figure.legends for text in each.get_texts()]


def marks(beta, seeds=2, kl=5.0):
    return [Mark(beta, kl / beta + 0.1 * seed, 140.0 + 5 * beta - seed) for seed in range(seeds)]


@pytest.mark.parametrize(("groups", "betas"), [(1, 1), (2, 1), (4, 2), (30, 2), (3, 12)])
def test_the_rate_distortion_plane_holds_every_run(check, groups, betas):
    series = [(f"{i}, prior", [m for b in range(1, betas + 1) for m in marks(b, kl=5.0 + i)]) for i in range(groups)]
    figure = check(rate_distortion(series, "latent_dim, prior" if groups > 1 else "", NOTE))
    (axes,) = figure.axes
    points = [line for line in axes.lines if line.get_linestyle() == "None"]
    assert len(points) == groups * betas * 2
    colours = {line.get_color() for line in points}
    assert len(colours) == min(groups, len(PALETTE) + 1)
    names = legend(figure)
    assert (f"{groups - 10} others, worse" in names) == (groups > 10) and len(names) <= 11 + 1
    written = [text.get_text() for text in axes.texts if text.get_text().startswith("β")]
    assert set(written) <= {f"β {beta}" for beta in range(1, betas + 1)} and bool(written) == (betas > 1)
    boxes = [text.get_window_extent() for text in axes.texts if text.get_text().startswith("β")]
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))


def test_each_beta_stands_at_its_mean():
    figure = rate_distortion([("", [*marks(4), *marks(1), *marks(2)])], "", NOTE)
    texts = [text for text in figure.axes[0].texts if isinstance(text, Annotation)]
    written = {text.get_text(): tuple(np.round(text.xy, 6)) for text in texts if text.get_text().startswith("β")}
    assert written == {
        "β 1": (5.05, 144.5),
        "β 2": (2.55, 149.5),
        "β 4": (1.3, 159.5),
    }


def test_lines_go_through_the_means_by_rising_beta():
    figure = rate_distortion([("", [*marks(4), *marks(1), *marks(2)])], "", NOTE)
    line = next(line for line in figure.axes[0].lines if line.get_color() == PALETTE[0])
    assert np.allclose(line.get_xdata(), [5.05, 2.55, 1.3]) and np.allclose(line.get_ydata(), [144.5, 149.5, 159.5])


@pytest.mark.parametrize("kl", [5.0, 500.0])  # higher than wide, and wider than high
def test_lines_of_equal_total_say_which(check, kl):
    figure = check(rate_distortion([("", [*marks(1, kl=kl), *marks(4, kl=kl)])], "", NOTE))
    (axes,) = figure.axes
    equal = [line for line in axes.lines if line.get_color() == "#CCCCCC"]
    sums = [line.get_xdata() + line.get_ydata() for line in equal]
    assert len(equal) > 3 and all(np.ptp(each) < 1e-9 for each in sums)
    named = {text.get_text(): sum(text.xy) for text in axes.texts if text.get_text().startswith("total")}
    assert len(named) > 3 and all(f"total {total:g}" == name for name, total in named.items())


def estimates(values, interval=1.0):
    return [SeedMean(value, 150.0 + i, interval) for i, value in enumerate(values)]


@pytest.mark.parametrize("groups", [1, 4, 30])
@pytest.mark.parametrize(
    ("values", "scale"),
    [
        ([5], "linear"),
        ([2, 3, 10], "linear"),
        ([1e-4, 1e-3, 1e-2], "log"),
        ([0, 1, 100], "symlog"),
        (list(range(1, 20)), "log"),
    ],
)
def test_totals_by_a_number_stand_where_the_number_is(check, groups, values, scale):
    series = [(f"{i}, prior", estimates(values)) for i in range(groups)]
    figure = check(totals("latent_dim", values, series, "beta, prior" if groups > 1 else "", NOTE))
    (axes,) = figure.axes
    assert axes.get_xscale() == scale and axes.get_xlabel() == "latent_dim"
    assert len(axes.containers) == groups
    at = np.mean([container[0].get_xdata() for container in axes.containers[-10:]], axis=0)
    assert np.allclose(at, values, rtol=0.02, atol=0.05 * min(np.diff(values), default=1))
    if len(values) <= 8:
        assert [text.get_text() for text in axes.get_xticklabels()] == [f"{value:g}" for value in values]


def test_single_seeds_stand_exactly_on_their_value():
    series = [(f"{i}", estimates([1, 2, 4], interval=None)) for i in range(4)]
    (axes,) = totals("beta", [1, 2, 4], series, "prior", NOTE).axes
    assert all(np.array_equal(container[0].get_xdata(), [1, 2, 4]) for container in axes.containers)


@pytest.mark.parametrize("words", [["isotropic", "correlated"], [f"[{i}12,256,128,64]" for i in range(12)]])
def test_totals_by_a_word_stand_side_by_side_without_lines(check, words):
    series = [(name, estimates(words)) for name in ("beta 1", "beta 4", "beta 9")]
    figure = check(totals("prior", words, series, "beta", NOTE))
    (axes,) = figure.axes
    assert [text.get_text().replace(" ", "").replace("\n", "") for text in axes.get_xticklabels()] == words
    assert all(container[0].get_linestyle() == "None" for container in axes.containers)
    first = [container[0].get_xdata()[0] for container in axes.containers]
    assert len(set(first)) == 3 and max(map(abs, first)) < 0.5
    labels = [text.get_window_extent() for text in axes.get_xticklabels()]
    assert all(left.x1 < right.x0 for left, right in pairwise(labels))


def test_bars_are_the_intervals_and_do_not_flatten_the_means():
    some = [SeedMean(1, 150.0, 2.0), SeedMean(2, 152.0, 500.0), SeedMean(3, 151.0, None)]
    figure = totals("beta", [1, 2, 3], [("", some)], "", NOTE)
    (axes,) = figure.axes
    (bars,) = axes.containers[0][2]
    assert np.allclose(np.array(bars.get_segments())[:, :, 1], [[148, 152], [-348, 652], [151, 151]])
    low, high = axes.get_ylim()
    assert low < 148 and high > 152 and high - low < 8
    assert figure.texts[0].get_text().startswith("bars: 95 % interval")


@pytest.mark.parametrize(("groups", "epochs"), [(1, 1), (2, 5), (4, 30), (30, 30)])
def test_curves_show_every_run_and_the_means(check, groups, epochs):
    x = np.arange(1, epochs + 1)
    lines = [[(epoch, 100 + 200 / epoch**2 + seed) for epoch in x] for seed in (0, 2)]
    figure = check(curves([(f"{i}", lines) for i in range(groups)], "prior" if groups > 1 else "", NOTE))
    (axes,) = figure.axes
    assert len(axes.lines) == 3 * groups
    assert np.allclose(axes.lines[2].get_ydata(), 101 + 200 / x**2)
    assert axes.get_ylim()[1] < 200 or epochs < 10  # the first epochs do not flatten the others


def test_a_mean_ends_with_the_shortest_run():
    figure = curves([("", [[(1, 5.0), (2, 4.0)], [(1, 7.0)]])], "", NOTE)
    assert np.allclose(figure.axes[0].lines[2].get_xydata(), [[1, 6]])
