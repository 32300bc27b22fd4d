import csv
import io
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import compare
import pytest
from comparisons import pictures
from PIL import Image

from vae.entry import programs
from vae.figures import style
from vae.figures.style import PALETTE
from vae.runs.ranking import pooled
from vae.runs.results import find_runs

PATH = Path(__file__).parents[2] / "scripts" / "compare.py"

MANIFOLD, CLUSTERS = pictures.SHEETS["manifolds"], pictures.SHEETS["clusters"]
CONFIG: dict[str, Any] = {
    "latent_dim": 2,
    "beta": 1.0,
    "seed": 0,
    "data": {"_target_": "vae.data.idx.IdxFiles", "root": "a", "name": "mnist", "limit": None},
    "prior": {"_target_": "vae.model.priors.Isotropic"},
    "likelihood": {"_target_": "vae.model.likelihoods.Bernoulli"},
    "objective": {"_target_": "vae.model.objectives.ELBO", "beta": 1.0},
    "optimizer": {"_target_": "torch.optim.Adam", "lr": 1e-3},
}
CHOICES = {"data": "mnist", "prior": "isotropic", "likelihood": "bernoulli", "optimizer": "adam"}
EPOCHS = "epoch,val/total\n1,150.0\n2,140.0\n"


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    """Makes folders of runs in the sweep `s`, in the current folder."""
    monkeypatch.chdir(tmp_path)

    def make(total=100.0, state="completed", limit=None, history=EPOCHS, picture=(40, 40), **values):
        number = len(list(Path("s").glob("*"))) if Path("s").exists() else 0
        folder = Path("s", f"{number}_run")
        folder.mkdir(parents=True)
        choices = {key: value for key, value in values.items() if key in CHOICES}
        config = CONFIG | {key: value for key, value in values.items() if key not in CHOICES}
        config["data"] = CONFIG["data"] | {"limit": limit}
        status = {"state": state, "error": None, "config": config, "choices": CHOICES | choices}
        (folder / "status.json").write_text(json.dumps(status))
        if state == "completed":
            terms = {"total": total, "recon": total - 5, "kl": 5.0}
            metrics = {f"{part}/{name}": value for part in ("val", "test") for name, value in terms.items()}
            metrics |= {"data": "mnist"}
            (folder / "metrics.json").write_text(json.dumps(metrics))
        if history:
            (folder / "history.csv").write_text(history)
        if picture:
            for file in (folder / sheet for sheet in pictures.SHEETS.values()):
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", picture).save(file)
        return folder

    return make


def table(capsys, *arguments):
    compare.main(["s", *arguments, "--csv"])
    return list(csv.DictReader(io.StringIO(capsys.readouterr().out)))


def test_seeds_are_pooled_and_the_best_is_marked(sweep, capsys):
    for prior, totals in (("isotropic", (110, 114)), ("correlated", (100, 103))):
        for seed, each in enumerate(totals):
            sweep(each, prior=prior, seed=seed)
    compare.main(["s"])
    head, rule, names, _, best, other, *_ = capsys.readouterr().out.splitlines()
    assert head == "4 runs on mnist: nats per image on the test set, ranked by validation" and set(rule) == {"─"}
    figures = ["validation", "±", "total", "±", "recon", "±", "kl", "±"]
    assert names.split() == ["prior", "seeds", *figures, "best"]
    total = ["101.50", "19.06"]
    assert best.split() == ["correlated", "2", *total, *total, "96.50", "19.06", "5.00", "0.00", "←"]
    assert other.split()[:4] == ["isotropic", "2", "112.00", "25.41"] and "←" not in other
    rows = table(capsys)
    assert [row["best"] for row in rows] == ["True", "False"]
    assert float(rows[0]["total ±"]) == pytest.approx(12.7062047 * 1.5)


def test_evaluations_are_columns(sweep, capsys):
    for seed in range(2):
        folder = sweep(seed=seed)
        (folder / "evaluation.json").write_text(json.dumps({"test/nll": 90.0 + seed, "test/mse": 0.03}))
    compare.main(["s"])
    assert " nll " in (printed := capsys.readouterr().out) and " mse " not in printed
    (row,) = table(capsys, "--metrics", "mse, nll", "--sort", "mse")
    assert float(row["mse"]) == 0.03 and float(row["nll"]) == 90.5


def test_only_the_runs_asked_for(sweep, capsys):
    for beta in (0.5, 1.0, 4.0):
        for prior in ("isotropic", "correlated"):
            sweep(100 + beta, beta=beta, prior=prior)
    assert len(table(capsys)) == 6
    assert [row["beta"] for row in table(capsys, "--where", "prior=correlated")] == ["0.5", "1", "4"]
    assert table(capsys, "--where", "prior=correlated", "--where", "beta=5e-1")[0]["total"] == "100.5"
    by_prior = table(capsys, "--where", "optimizer.lr=1e-3", "--sort", "prior")
    assert [row["prior"] for row in by_prior] == ["correlated"] * 3 + ["isotropic"] * 3


def test_other_measures_have_tables_of_their_own(sweep, capsys):
    for total, more in ((100, {}), (90, {"limit": 600}), (-900, {"likelihood": "gaussian"}), (101, {"seed": 1})):
        sweep(total, **more)
    compare.main(["s"])
    out = capsys.readouterr().out
    assert [f"{i} of 3" in out for i in (1, 2, 3)] == [True] * 3 and out.count("←") == 3
    assert "2 of 3: likelihood=bernoulli data.limit=600\n1 run on mnist" in out
    why = "3 tables, not ranked with each other: the test images differ and recon under another likelihood is another "
    assert out.startswith(why) and out.count("not ranked") == 1
    rows = table(capsys)
    assert [(row["likelihood"], row["data.limit"], row["seeds"]) for row in rows] == [
        ("bernoulli", "null", "2"),
        ("bernoulli", "600", "1"),
        ("gaussian", "null", "1"),
    ]
    compare.main(["s", "--markdown"])
    out = capsys.readouterr().out
    assert out.count("| best |") == 3 and out.startswith(why) and out.count("not ranked") == 1
    compare.main(["s", "--where", "likelihood=gaussian"])
    assert "not ranked" not in capsys.readouterr().out


def test_runs_that_are_not_completed_are_left_out_and_counted(sweep, capsys):
    for state in ("completed", "failed", "running", "running"):
        sweep(state=state)
    compare.main(["s"])
    assert capsys.readouterr().out.splitlines()[-1] == "left out: 1 failed, 2 running"
    Path("s", "results.md").touch()
    compare.main(["s", "--csv"])
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 2 and err == "left out: 1 failed, 2 running; see s/results.md\n"


def test_files_are_written_beside_the_table(sweep, capsys):
    sweep()
    compare.main(["s", "--csv", "out/a.csv", "--markdown", "out/a.md"])
    assert capsys.readouterr().out.splitlines()[-2:] == ["out/a.csv", "out/a.md"]
    assert Path("out/a.csv").read_text().startswith("seeds,validation") and "| --- |" in Path("out/a.md").read_text()


def test_pictures_are_drawn_where_they_apply(sweep, capsys):
    for beta in (1.0, 4.0):
        for prior in ("isotropic", "correlated"):
            for seed in (0, 1):
                sweep(100 + beta + seed, beta=beta, prior=prior, seed=seed)
    compare.main(["s", "--figures", "pictures"])
    names = ["rate_distortion", "total_by_beta", "total_by_prior", "curves", "manifolds", "clusters", "samples"]
    assert capsys.readouterr().out.splitlines()[-7:] == [f"pictures/{name}.png" for name in names]
    for name in names:
        assert Image.open(f"pictures/{name}.png").width > 1000


def test_pictures_that_do_not_apply_are_explained(sweep, capsys):
    for seed in (0, 1):
        sweep(seed=seed, history=None, picture=None)
    compare.main(["s", "--figures", "pictures"])
    assert capsys.readouterr().out.splitlines()[-6:] == [
        "pictures/rate_distortion.png",
        "no total_by_KEY.png: the runs differ by nothing but their seeds",
        "no curves.png: no run has a history.csv",
        "no manifolds.png: no run has a figures/latent/manifold.png",
        "no clusters.png: no run has a figures/latent/clusters.png",
        "no samples.png: no run has a figures/images/samples.png",
    ]


def test_pictures_of_other_measures_go_to_folders_of_their_own(sweep):
    sweep()
    sweep(likelihood="gaussian")
    compare.main(["s", "--figures", "pictures"])
    assert Path("pictures/table_1/curves.png").exists() and Path("pictures/table_2/curves.png").exists()


def test_a_run_without_a_finite_total_is_in_no_picture(sweep, capsys):
    sweep(float("nan"))
    compare.main(["s", "--figures", "pictures"])
    assert capsys.readouterr().out.splitlines()[-1] == "no comparison.png: no run has a finite total"
    sweep(seed=1)
    compare.main(["s", "--figures", "pictures"])
    assert Path("pictures/curves.png").exists()


def runs_of(*folders):
    return find_runs(folders or ["s"])


def test_the_contact_sheet_shows_the_best_of_each_cell(sweep):
    for lr, beta, seed, total in ((1, 1.0, 0, 9), (1, 1.0, 1, 7), (2, 1.0, 0, 5), (1, 4.0, 0, 6), (1, 2.0, 0, 6)):
        sweep(total, beta=beta, seed=seed, latent_dim=lr, picture=None if beta == 2 else (40 + total, 40))
    figure = pictures.contact_sheet(runs_of(), ["latent_dim", "beta"], "", MANIFOLD)
    assert [axes.get_title() for axes in figure.axes[:3]] == ["beta=1", "beta=2", "beta=4"]
    assert [text.get_text() for text in figure.texts[1:]] == ["latent_dim=1", "latent_dim=2"]
    assert figure.axes[0].images[0].get_array().shape[1] == 47
    assert figure.axes[0].get_xlabel() == "total 7.00\nbest of 2: seed=1"
    missing = [[text.get_text() for text in axes.texts] for axes in figure.axes]
    assert missing == [[], ["no picture"], [], [], ["no run"], ["no run"]]


def test_the_clusters_have_one_legend_and_no_small_print_of_their_own(sweep):
    handles = style.class_handles(["one class", "another class"])
    for seed in range(3):
        folder = sweep(seed=seed)
        figure = style.new_figure(3.0, 2.0, "small print", right=style.BESIDE + style.legend_width(handles))
        figure.add_subplot()
        style.legend_beside(figure, handles)
        programs.save_picture(folder / CLUSTERS, figure)
    sheet = pictures.contact_sheet(runs_of(), [], "", CLUSTERS)
    legend, *tiles = sheet.axes
    legends = figure.legends[0].get_window_extent()
    height, width, _ = legend.images[0].get_array().shape
    assert len(tiles) == 3 and 0 < width <= legends.width and 0 < height <= 1.1 * legends.height
    assert legend.get_window_extent().width / sheet.dpi == pytest.approx(width / figure.dpi, rel=0.01)
    for tile in tiles:
        height, width, _ = tile.images[0].get_array().shape
        assert figure.axes[0].get_window_extent().x1 < width < legends.x0
        assert height < figure.bbox.height - figure.texts[0].get_window_extent().y1


def test_the_pictures_say_which_backbone_and_likelihood_are_not_the_default(sweep):
    conv = {"_target_": "vae.model.backbones.Conv"}
    for beta, gaussian in ((1.0, False), (4.0, True)):
        status = sweep(beta=beta, backbone=conv) / "status.json"
        if gaussian:
            status.write_text(status.read_text().replace("likelihoods.Bernoulli", "likelihoods.Gaussian"))
    runs = runs_of()
    assert pictures.shared(runs, ()) == ["conv backbone"]
    assert pictures.shared(runs[1:], ()) == ["conv backbone", "gaussian likelihood"]
    assert pictures.shared(runs[1:], ["likelihood"]) == ["conv backbone"]


def test_one_key_lays_the_contact_sheet_out_in_rows(sweep):
    for seed in range(8):
        sweep(seed=seed)
    figure = pictures.contact_sheet(runs_of(), [], "", MANIFOLD)
    labels = [axes.get_xlabel().splitlines()[0] for axes in figure.axes[:8]]
    assert labels == [f"seed={seed}" for seed in range(8)] and len(figure.axes) == 9


def test_the_ten_best_series_come_first_in_order(sweep):
    for beta in range(12):
        sweep(200 - beta, beta=float(beta))
    pools = pooled(runs_of(), ["beta"])
    title, groups = pictures.series(pools)
    assert title == "beta" and [name for name, _ in groups] == [*map(str, range(2, 12)), "1", "0"]
    assert len(PALETTE) == pictures.COLOURS
    assert pictures.series(pools, without="beta") == ("", [("", pools)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name the folders"),
        (["nowhere"], "nowhere: no such folder"),
        (["s", "--where", "priro=x"], "priro: no such key; did you mean prior?"),
        (["s", "--where", "optimizer.lrr=1"], "did you mean optimizer.lr?"),
        (["s", "--where", "prior"], "--where prior: must be key=value"),
        (["s", "--where", "prior=tied"], "no run has it; found are isotropic"),
        (["s", "--sort", "totl"], "did you mean total?"),
        (["--csv", "s"], "--csv s: is a folder"),
    ],
)
def test_says_in_one_line_what_is_wrong(sweep, arguments, message):
    sweep()
    with pytest.raises(SystemExit) as stop:
        compare.main(arguments)
    assert str(stop.value).startswith("error: ") and message in str(stop.value) and "\n" not in str(stop.value)


@pytest.mark.parametrize(
    ("file", "content"), [("status.json", "{"), ("metrics.json", "{}"), ("history.csv", "epoch\n1\n")]
)
def test_says_which_file_is_damaged(sweep, file, content):
    (sweep() / file).write_text(content)
    with pytest.raises(SystemExit, match=rf"^error: s/0_run/{file}: [^\n]*$"):
        compare.main(["s", "--figures", "pictures"])


def test_no_run_is_completed(sweep):
    sweep(state="running")
    with pytest.raises(SystemExit, match="error: no run is completed: 1 running"):
        compare.main(["s"])


def test_five_hundred_runs_take_no_time(sweep):
    for i in range(500):
        sweep(seed=i % 5, latent_dim=i // 5, history=None, picture=None)
    start = time.perf_counter()
    compare.main(["s"])
    assert time.perf_counter() - start < 5


def test_the_program_needs_neither_torch_nor_matplotlib(sweep):
    sweep()
    code = (
        "import pathlib, runpy, sys; sys.argv.pop(0); sys.path[0] = str(pathlib.Path(sys.argv[0]).parent);"
        "runpy.run_path(sys.argv[0], run_name='__main__');"
        "print(*{'torch', 'matplotlib', 'pytorch_lightning'} & set(sys.modules))"
    )
    for arguments, loaded in (([], ""), (["--figures", "pictures"], "matplotlib")):
        done = subprocess.run([sys.executable, "-c", code, PATH, "s", *arguments], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-1] == loaded


def test_help_has_examples(capsys):
    with pytest.raises(SystemExit) as stop:
        compare.main(["--help"])
    assert stop.value.code == 0 and "examples:" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments", [["--csv", "--markdown"], ["--csv", "a", "--markdown", "./a"], ["--csv=/dev/stdout", "--markdown"]]
)
def test_two_tables_do_not_go_to_one_place(sweep, arguments):
    sweep()
    with pytest.raises(SystemExit, match=r"^error: --csv \S+ and --markdown \S+: must be two places$"):
        compare.main(["s", *arguments])


def test_standard_output_has_two_names(sweep, tmp_path, capsys):
    sweep()
    compare.main(["s", "--csv", "--figures", "f"])
    said = capsys.readouterr().out
    compare.main(["s", "--csv", "/dev/stdout", "--figures", "f"])
    assert capsys.readouterr().out == said and said.startswith("seeds,")


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n\x00\x00"])
def test_a_picture_that_cannot_be_read_is_named(sweep, content):
    for seed in range(2):
        folder = sweep(seed=seed)
    (folder / MANIFOLD).write_bytes(content)
    with pytest.raises(SystemExit, match=rf"^error: {folder / MANIFOLD}: cannot be read as a picture \(\w+\)$"):
        compare.main(["s", "--figures", "f"])


def test_a_history_that_is_no_table_is_named(sweep):
    field = "9" * (csv.field_size_limit() + 1)
    folder = sweep(history=f"epoch,val/total\n1,{field}\n")
    with pytest.raises(SystemExit, match=rf"^error: {folder / 'history.csv'}: must hold numbers in the columns"):
        compare.main(["s", "--figures", "f"])
