import math

import pytest
from made_runs import autoencoder, correlated, gaussian, rows, run

from vae.runs.ranking import (
    comparable,
    comparison_table,
    mean_of,
    metrics_of,
    pooled,
    student_t,
    why_separate,
    with_real_data,
)
from vae.runs.results import Run


@pytest.mark.parametrize(
    ("other", "differences", "reason"),
    [
        (gaussian(0.1), ["likelihood"], "another likelihood"),
        (run(groups={"data": {"limit": 600}}), ["data.limit"], "the test images differ"),
        (run(groups={"data": {"binarize": "dynamic"}}), ["data.binarize"], "binarised"),
        (run(data="strokes", choices={"data": "strokes"}), ["data"], "the test images differ"),
        (run(conditional=True), ["conditional"], "told the class"),
    ],
)
def test_other_measures_are_kept_apart(other: Run, differences: list[str], reason: str) -> None:
    sets, keys = comparable([run(), other, run(seed=1)])
    assert [len(each.runs) for each in sets] == [2, 1] and keys == ["seed"]
    assert [list(each.differences) for each in sets] == [differences, differences]
    assert reason in why_separate(sets) and " and " not in why_separate(sets)


def test_parameters_of_the_likelihood_are_part_of_the_measure() -> None:
    sets, _ = comparable([gaussian(0.1), gaussian(0.5), gaussian(0.1)])
    assert [each.differences for each in sets] == [{"likelihood.sigma": 0.1}, {"likelihood.sigma": 0.5}]


def test_how_the_data_is_trained_on_is_no_part_of_the_measure() -> None:
    sets, keys = comparable([run(), run(groups={"data": {"batch_size": 64, "root": "elsewhere", "flip": True}})])
    assert len(sets) == 1 and sets[0].differences == {} and sorted(keys) == ["data.batch_size", "data.flip"]


def test_the_data_really_used_is_what_counts() -> None:
    groups = {"data": {"_target_": "vae.data.auto.Auto"}}
    auto = [run(choices={"data": "auto"}, groups=groups, data=data) for data in ("mnist", "strokes")]
    sets, keys = comparable([with_real_data(each) for each in (run(), *auto)])
    assert [len(each.runs) for each in sets] == [2, 1] and keys == []
    assert [each.differences for each in sets] == [{"data": "mnist"}, {"data": "strokes"}]


@pytest.mark.parametrize(
    ("degrees", "t"),
    [(1, 12.7062), (2, 4.3027), (3, 3.1824), (4, 2.7764), (9, 2.2622), (30, 2.0423), (120, 1.9799), (10_000, 1.9602)],
)
def test_students_t_is_that_of_the_tables(degrees: int, t: float) -> None:
    assert student_t(degrees) == pytest.approx(t, abs=5e-5)


def test_the_interval_of_a_mean_is_students() -> None:
    # s² = 5/3, s/√4 = 0.645497
    assert mean_of([1, 2, 3, 4]) == pytest.approx((2.5, 3.182446 * 0.645497, 4), rel=1e-6)
    assert mean_of([7.0]) == (7.0, None, 1)


def test_seeds_are_pooled_and_the_best_comes_first() -> None:
    runs = [run(total=110.0), run(total=114.0, seed=1), correlated(total=100.0), correlated(total=103.0, seed=1)]
    best, other = pooled(runs, ["seed", "prior"])
    assert best.values == {"prior": "correlated"} and other.runs == runs[:2]
    # With two seeds s/√2 is half of their distance.
    assert best.mean("test/total") == pytest.approx((101.5, 12.7062 * 1.5, 2), rel=1e-5)
    assert other.mean("test/recon") == pytest.approx((107.0, 12.7062 * 2, 2), rel=1e-5)


def test_a_seed_counts_once_and_what_is_no_number_is_last() -> None:
    (pool,) = pooled([run(total=1.0), run(total=3.0), run(total=8.0, seed=1)], [])
    assert pool.mean("test/total").n == 2 and pool.mean("test/total").value == 5.0
    pools = pooled([run(total=math.nan), run(total=9.0, beta=2.0)], ["beta"])
    assert [each.values["beta"] for each in pools] == [2.0, 1.0]


def test_the_comparison_marks_the_best_whatever_it_is_sorted_by() -> None:
    runs = [run(total=110.0), run(total=114.0, seed=1), run(total=100.0, beta=4.0), run(total=102.0, beta=4.0, seed=1)]
    pools = pooled(runs, ["beta", "seed"])
    table = comparison_table(pools, "beta")
    assert [row["beta"] for row in table.rows] == [1.0, 4.0] and [row["best"] for row in table.rows] == [False, True]
    assert " ".join(table.text().splitlines()[4].split()) == "4 2 101.00 12.71 101.00 12.71 96.00 12.71 5.00 0.00 ←"
    assert rows(table.csv())[0]["total ±"] == repr(table.rows[0]["total ±"])
    with pytest.raises(ValueError, match="did you mean total"):
        comparison_table(pools, "totl")


def test_a_single_seed_has_no_interval() -> None:
    pools = pooled([run(total=110.0), run(total=100.0, beta=4.0)], ["beta"])
    text = comparison_table(pools).text()
    assert "±" not in text and text.splitlines()[1].split() == [
        *("beta", "seeds", "validation", "total", "recon", "kl", "best")
    ]


def test_the_validation_images_choose_and_not_the_test_images() -> None:
    runs = [run(total=110.0, validation=90.0), run(total=100.0, validation=95.0, beta=4.0)]
    first, second = pooled(runs, ["beta"])
    assert (first.values["beta"], second.values["beta"]) == (1.0, 4.0)
    assert [(row["beta"], row["best"]) for row in comparison_table([first, second]).rows] == [(1.0, True), (4.0, False)]


@pytest.mark.parametrize(("difference", "marked"), [(0.2, False), (0.3, True)])
def test_no_best_is_marked_within_the_error_of_one_draw(difference: float, marked: bool) -> None:
    """2 √(0.1² + 0.1² / 2) = 0.245: the mean of two runs has an error of 0.1 / √2."""
    runs = [run(noise=0.1), *(run(total=100.0 + difference, noise=0.1, beta=4.0, seed=seed) for seed in (0, 1))]
    table = comparison_table(pooled(runs, ["beta", "seed"]))
    assert [row["best"] for row in table.rows] == [marked, False]
    said = f"no best: the first two differ by {difference:.2f}, within the ±0.24 of one draw of z for each image"
    assert (said in table.notes) != marked


def test_autoencoders_are_ranked_by_recon_among_themselves() -> None:
    runs = [autoencoder(), run(), autoencoder(recon=80.0, latent_dim=3), run(seed=1)]
    sets, keys = comparable(runs)
    assert [each.differences for each in sets] == [{"ranked by": "recon"}, {"ranked by": "total"}]
    assert "no part of a total" in why_separate(sets)
    table = comparison_table(pooled(sets[0].runs, ["latent_dim"]))
    assert table.columns == ["latent_dim", "seeds", "validation", "validation ±", "recon", "recon ±", "best"]
    assert [(row["recon"], row["best"]) for row in table.rows] == [(80.0, True), (90.0, False)]
    assert "objective" in keys


def evaluated(content: Run, **values: float) -> Run:
    content.metrics.update({f"test/{name}": value for name, value in values.items()})
    return content


def test_what_was_evaluated_has_columns() -> None:
    runs = [evaluated(run(), nll=90.0, mig=0.2), evaluated(run(seed=1), nll=92.0, mig=0.25), run(beta=4.0)]
    assert metrics_of(runs, None) == ["nll", "mig"] and metrics_of(runs, ["all"]) == ["nll", "mig"]
    table = comparison_table(pooled(runs, ["beta", "seed"]), "nll", metrics_of(runs, None))
    assert [row["nll"] for row in table.rows] == [91.0, None]
    assert table.rows[0]["mig"] == pytest.approx(0.225) and table.rows[0]["nll ±"] == pytest.approx(12.7062, rel=1e-5)
    assert [row["seeds"] for row in table.rows] == [2, 1]
    assert " 91.00  12.71  0.225  0.318" in table.text()  # scores have a digit more than nats


def test_a_figure_of_some_seeds_alone_is_not_shown_as_that_of_all() -> None:
    table = comparison_table(pooled([evaluated(run(), nll=90.0), run(seed=1)], ["seed"]), metrics=["nll"])
    assert table.rows[0]["nll"] is None and table.rows[0]["total"] == 100.0


def test_unknown_metrics_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^--metrics fid: must be all, or some of what has been measured: nll$"):
        metrics_of([evaluated(run(), nll=90.0)], ["nll", "fid"])
    with pytest.raises(ValueError, match="nothing: evaluate the runs first"):
        metrics_of([run()], ["nll"])
