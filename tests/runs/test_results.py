import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_runs import autoencoder, correlated, rows, run, write

from vae.common.tables import Table, typed
from vae.runs.results import (
    Run,
    differing,
    find_runs,
    is_value,
    read_run,
    refuse_unknown_key,
    results_table,
)

# Reading --------------------------------------------------------------------------------------------------------------


def test_a_folder_is_read_as_it_was_written(tmp_path: Path) -> None:
    expected = correlated(str(tmp_path / "a"), 120.0)
    assert read_run(write(tmp_path / "a", expected)) == expected
    assert read_run(tmp_path) is None


def test_an_evaluation_s_values_are_among_the_metrics(tmp_path: Path) -> None:
    folder = write(tmp_path / "a", run())
    (folder / "evaluation.json").write_text('{"epoch": 3, "step": 7, "test/nll": 90.5}')
    found = read_run(folder)
    assert found is not None and found.metrics["test/nll"] == 90.5 and found.metrics["test/total"] == 100.0
    assert "step" not in found.metrics  # it is the evaluation's


def test_an_autoencoder_has_neither_total_nor_kl(tmp_path: Path) -> None:
    expected = autoencoder(str(tmp_path / "a"))
    found = read_run(write(tmp_path / "a", expected))
    assert found == expected and (found.term, found.validation) == ("recon", 91.0)
    assert found.value("beta") == "" and run().value("beta") == 1.0
    assert (run(total=7.0, validation=8.0).term, run(total=7.0, validation=8.0).validation) == ("total", 8.0)


def test_where_the_loss_has_no_beta_no_two_runs_differ_by_it() -> None:
    assert differing([autoencoder(), autoencoder(beta=4.0)]) == []


def test_figures_count_only_of_completed_runs(tmp_path: Path) -> None:
    found = read_run(write(tmp_path / "a", run(total=100.0, state="running")))
    assert found is not None and found.metrics == {}


def test_a_class_that_was_typed_stands_for_the_choice(tmp_path: Path) -> None:
    folder = write(tmp_path / "a", run(groups={"prior": {"_target_": "mypkg.Wide"}}))
    status = json.loads((folder / "status.json").read_text())
    status["overrides"] = ["prior._target_=mypkg.Wide", "+prior.scale=3", "seed=1"]
    (folder / "status.json").write_text(json.dumps(status))
    found = read_run(folder)
    assert found is not None and found.value("prior") == "mypkg.Wide" and found.value("likelihood") == "bernoulli"


def test_values_are_what_one_would_type() -> None:
    some = correlated(covariance=[[2.0, -0.7], [-0.7, 1.5]])
    assert some.value("prior") == "correlated" and some.value("latent_dim") == 2
    assert typed(some.value("prior.covariance")) == "[[2,-0.7],[-0.7,1.5]]"
    assert some.value("optimizer.lr") == 0.001 and some.value("prior.nothing") == ""
    assert [typed(value) for value in (None, True, 1e-5, 0.1 + 0.2)] == ["null", "true", "1e-05", "0.30000000000000004"]


def test_runs_are_found_once_in_natural_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("10_a", "2_a", "1_a"):
        write(tmp_path / "sweep" / name, run())
    write(tmp_path / "sweep" / "2_a" / "checkpoints" / "inner", run())
    write(tmp_path / "other", run())
    found = find_runs(["sweep/2_a", tmp_path, "sweep", Path("other")])
    assert [each.folder.name for each in found] == ["other", "1_a", "2_a", "10_a"]
    assert found[2].folder == Path("sweep/2_a")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (None, "no such folder"),
        ({}, "holds no run"),
        ({"status.json": '{"state": "comp'}, "cannot be read as JSON"),
        ({"status.json": b"\xff\xfe"}, "cannot be read as JSON"),
        ({"status.json": "[1]"}, "must hold a JSON object"),
        ({"status.json": '{"health": "good"}'}, "is no run's status"),
        ({"status.json": '{"state": "completed", "config": {}, "choices": {}}'}, "metrics.json: must hold"),
    ],
)
def test_what_is_no_run_is_told_in_one_line(tmp_path: Path, files: dict[str, Any] | None, message: str) -> None:
    folder = tmp_path / "folder"
    if files is not None:
        folder.mkdir()
        for name, content in files.items():
            (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message) as error:
        find_runs([folder])
    assert str(folder) in str(error.value) and "\n" not in str(error.value)


# What tells runs apart ------------------------------------------------------------------------------------------------


def test_keys_come_by_their_level_and_copies_of_others_do_not() -> None:
    runs = [run(), run(seed=1, latent_dim=3), run(groups={"optimizer": {"lr": 0.01}}), correlated()]
    assert differing(runs) == ["latent_dim", "seed", "prior", "optimizer.lr"]


def test_keys_of_a_group_count_only_among_runs_with_the_same_choice() -> None:
    matrix = [[2.0, 0.0], [0.0, 1.0]]
    assert differing([run(), correlated(covariance=matrix)]) == ["prior"]
    assert differing([run(), correlated(), correlated(covariance=matrix)]) == ["prior", "prior.covariance"]
    assert differing([run(), run(groups={"prior": {"_target_": "vae.model.priors.New"}})]) == ["prior._target_"]


def test_the_place_of_the_data_counts_only_where_it_is_the_data() -> None:
    assert differing([run(), run(groups={"data": {"root": "b"}})]) == []
    faces, cats = (
        run(choices={"data": "images"}, groups={"data": {"_target_": "vae.data.images.ImageFolder", "root": root}})
        for root in ("faces", "cats")
    )
    sprites = {"_target_": "vae.data.factors.FactorFile", "file": "sprites.npz"}
    same, moved, other = (
        run(choices={"data": "factors"}, groups={"data": sprites | changed})
        for changed in ({"root": "a"}, {"root": "b"}, {"root": "a", "file": "others.npz"})
    )
    assert differing([same, moved]) == [] and differing([same, other]) == ["data.file"]
    foreign = [run(groups={"data": {"_target_": "mypkg.Data", "root": root}}) for root in "ab"]
    assert differing([faces, cats]) == ["data.root"] == differing(foreign)
    assert differing([faces, run(), run(groups={"data": {"root": "b"}})]) == ["data"]


def test_pictures_tell_no_runs_apart() -> None:
    assert differing([run(), run(groups={"figures": {"grid": "quantile"}})]) == []
    assert differing([run(), run(groups={"evaluate": {"samples": 5}})]) == []


def test_all_copies_in_the_real_configuration_are_recognised(compose: Callable[..., dict[str, Any]]) -> None:
    configs = [compose("latent_dim=2"), compose("latent_dim=5", "beta=4", "epochs=7", "data.root=elsewhere")]
    runs = [Run(Path(str(i)), "running", None, config, {}, {}) for i, config in enumerate(configs)]
    assert differing(runs) == ["latent_dim", "beta", "epochs"]
    assert runs[0].value("prior") == "vae.model.priors.Isotropic"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.001, "1e-3"),
        (2, "2.0"),
        (None, "null"),
        (True, "true"),
        ("0", "0"),
        ([[2.0, 1]], "[[2, 1.0]]"),
        (["a", "b"], "[a, b]"),
    ],
)
def test_a_value_is_known_however_it_is_typed(value: Any, text: str) -> None:
    assert is_value(value, text) and not is_value(value, "other")


@pytest.mark.parametrize(
    ("key", "message"),
    [("btea", "did you mean beta"), ("optimizer.l", "did you mean optimizer.lr"), ("optimiser.lr", "mean optimizer")],
)
def test_an_unknown_key_is_refused_with_the_near_ones(key: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        refuse_unknown_key(key, ["beta", "seed", "optimizer", "optimizer.lr", "prior.covariance"])


# Tables ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def sweep() -> list[Run]:
    return [
        run("/sweep/1_beta=1", 120.0),
        run("/sweep/2_beta=2", 110.0, beta=2.0),
        run("/sweep/10_beta=4", 110.0, beta=4.0),
        run("/sweep/11_beta=9", None, beta=9.0, state="failed", error="ValueError: no\nway"),
        run("/sweep/12_beta=10", None, beta=10.0, state="running"),
    ]


def test_results_are_ranked_and_failures_explained(sweep: list[Run]) -> None:
    table = results_table(sweep)
    assert [row["folder"].partition("_")[0] for row in table.rows] == ["2", "10", "1", "11", "12"]
    by_validation = results_table([run("/s/1", 120.0, validation=108.0), run("/s/2", 110.0), autoencoder("/s/3", 50.0)])
    assert [row["folder"] for row in by_validation.rows] == ["1", "2", "3"]  # recon alone is no better than a total
    assert [row["total"] for row in by_validation.rows] == [120.0, 110.0, None]
    assert results_table(sweep[::-1]).text() == table.text()
    text, markdown = table.text(100), table.markdown()
    rule, head, *body = text.splitlines()
    assert head.split() == ["status", "beta", "validation", "total", "recon", "kl", "seconds", "folder"]
    assert rule == body[0] == body[-3] == "─" * len(rule) and all(len(line) <= len(rule) for line in body[:-3])
    assert body[1].split() == ["completed", "2", "110.00", "110.00", "105.00", "5.00", "1.50", "2_beta=2"]
    assert body[1].rindex("110.00") + 6 == head.index("total") + 5  # numbers end where their heading ends
    assert text.endswith("11_beta=9: ValueError: no way") and markdown.endswith("\n11_beta=9: ValueError: no way\n")
    assert markdown.splitlines()[1] == "| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |"


def test_what_failed_for_one_reason_is_explained_once(sweep: list[Run]) -> None:
    more = [run(f"/sweep/{i}_seed={i}", None, seed=i, state="failed", error="ValueError: no way") for i in (20, 21)]
    other = run("/sweep/30_seed=3", None, seed=3, state="failed", error="OSError: full")
    validation, *notes = results_table([*sweep, *more, other]).notes
    assert validation.startswith("best first by the validation total")
    assert notes == ["11_beta=9 and 2 more: ValueError: no way", "30_seed=3: OSError: full"]


def test_csv_has_everything_in_full(sweep: list[Run]) -> None:
    sweep[0] = run("/sweep/1_a,b", 1 / 3, groups={"optimizer": {"lr": 1e-5}})
    read = rows(results_table(sweep).csv())
    keys, terms = ["beta", "optimizer.lr"], ["validation", "total", "recon", "kl"]
    assert list(read[0]) == ["status", *keys, *terms, "seconds", "folder", "error"]
    assert float(read[0]["total"]) == 1 / 3 and read[0]["folder"] == "1_a,b" and read[0]["optimizer.lr"] == "1e-05"
    assert read[3]["error"] == "ValueError: no\nway" and read[3]["total"] == ""


def test_folders_of_several_sweeps_are_told_apart(sweep: list[Run]) -> None:
    table = results_table([run("/a/s1/0_x", 1.0), run("/a/s2/0_x", 2.0)])
    assert [row["folder"] for row in table.rows] == ["s1/0_x", "s2/0_x"]


def test_lines_do_not_wrap() -> None:
    matrix = [[1.0, 0.123456789], [0.123456789, 1.0]]
    name = "0_" + "a" * 150
    text = results_table([correlated(f"/sweep/{name}"), correlated("/sweep/1_b", covariance=matrix)]).text(80)
    *table, below, _ = text.splitlines()
    assert max(map(len, table)) == 80 and table[3].endswith("…") and "0_aaaa" in table[3]
    assert "(1)" in table[4] and below == f"(1) {typed(matrix)}"


def test_cells_do_not_break_a_markdown_table() -> None:
    table = results_table([run("/sweep/a|b"), run("/sweep/c", seed=1)])
    assert "a\\|b" in table.markdown()


def test_neither_torch_nor_matplotlib_is_imported() -> None:
    code = "import sys, vae.runs.ranking; assert not {'torch', 'matplotlib', 'pytorch_lightning'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("status.json", ""),
        ("status.json", "[" * 100_000),
        ("status.json", '{"state": "completed", "config": {}, "choices": {}, "overrides": 3}'),
        ("metrics.json", ""),
        ("metrics.json", '{"test/total": "100"}'),
        ("evaluation.json", "{"),
        ("evaluation.json", '{"test/nll": null}'),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, name: str, content: str) -> None:
    folder = write(tmp_path / "a", run())
    (folder / name).write_text(content)
    with pytest.raises(ValueError, match=f"^{folder / name}: "):
        find_runs([tmp_path])


def test_a_class_that_was_typed_in_the_place_of_none_is_none(tmp_path: Path) -> None:
    folder = write(tmp_path / "a", run(scheduler=None))
    status = json.loads((folder / "status.json").read_text())
    (folder / "status.json").write_text(json.dumps(status | {"overrides": ["scheduler._target_=mypkg.Slow", 3]}))
    found = read_run(folder)
    assert found is not None and found.value("scheduler") == ""


def test_searched_values_have_four_digits_where_these_tell_them_apart():
    rows = [{"beta": 1.2076297844304393, "lr": 0.00070011, "a": 0.25}, {"beta": 0.5, "lr": 0.00070012, "a": 0.25}]
    table = Table(["beta", "lr", "a"], ["beta", "lr", "a"], rows)
    assert table.cells()[1] == [["1.208", "0.00070011", "0.25"], ["0.5", "0.00070012", "0.25"]]
    assert "1.2076297844304393" in table.csv()


def test_what_an_objective_sets_tells_no_runs_apart() -> None:
    def of(objective: str, report: str) -> Run:
        found = run()
        found.choices["objective"], found.config["report"] = objective, report
        return found

    elbo, gan = of("elbo", "best"), of("vae_gan", "last")
    assert differing([elbo, gan]) == ["objective"]
    assert differing([elbo, gan, of("elbo", "last")]) == ["report", "objective"]
