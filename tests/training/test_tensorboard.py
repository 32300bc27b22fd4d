"""TensorBoard's own server over three runs: what a browser gets from every plugin."""

import json
import os
import signal
import socket
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.compat.tensorflow_stub import pywrap_tensorflow
from tensorboard.program import TensorBoard

from vae.common.signals import Interrupted
from vae.runs.record import recorded
from vae.settings.compose import program
from vae.training.run import train_run
from vae.training.tensorboard import DOT, RunLogger

Ask = Callable[..., Any]
RUNS = {
    "a": ["latent_dim=2"],
    "b": ["latent_dim=3", "beta=4"],
    "c": ["latent_dim=2", "prior=correlated", "prior.covariance=[[2.0,0.5],[0.5,1.0]]"],
}


@pytest.fixture(scope="module")
def logdir(tmp_path_factory: pytest.TempPathFactory, compose: Any, image_folder: Path) -> Path:
    """Finished runs a, b, c and a failed one."""
    logdir = tmp_path_factory.mktemp("logdir")
    small = ["data=images", f"data.root={image_folder}", "data.channels=1", "data.batch_size=8", "epochs=2"]
    for name, overrides in RUNS.items():
        config = compose(*small, *overrides)
        (logdir / name).mkdir()
        with recorded(logdir / name, config, typed=overrides):
            train_run(config, logdir / name)
    train_run(compose(*small, *RUNS["a"], "epochs=3"), logdir / "a")  # trained further: nothing must stand there twice
    with pytest.raises(FloatingPointError):
        train_run(compose(*small, "optimizer.lr=1e30"), logdir / "failed")
    return logdir


@pytest.fixture(scope="module")
def ask(logdir: Path) -> Ask:
    """Asks a plugin of a server over these runs."""
    get = serve(logdir)
    deadline = time.monotonic() + 60  # the server reads the files in the background
    while time.monotonic() < deadline:
        scalars = get("scalars/tags")
        if len(get("text/tags")) == 4 and all("test/total" in scalars.get(run, {}) for run in RUNS):
            break
        time.sleep(0.2)
    return get


def serve(logdir: Path) -> Ask:
    """Start TensorBoard's server, and ask its plugins."""
    board = TensorBoard()
    board.configure(argv=["", "--logdir", str(logdir), "--port", "0", "--load_fast", "false"])
    url = board.launch()

    def get(path: str, body: dict[str, Any] | None = None) -> Any:
        content = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"{url}data/plugin/{path}", content, {"Content-Type": "application/json"} if content else {}
        )
        with urllib.request.urlopen(request, timeout=20) as response:
            return json.loads(response.read())

    return get


@pytest.mark.slow
def test_scalars(ask: Ask) -> None:
    losses = {f"{part}/{term}" for part in ("train", "val", "test") for term in ("loss", "total", "recon", "kl")}
    course = {"train/lr", "train/seconds", "latent/active_units", "latent/kl_0", "latent/kl_1"}
    for run in RUNS:
        assert set(ask("scalars/tags")[run]) - {"latent/kl_2"} == losses | course


@pytest.mark.slow
def test_the_kl_of_the_dimensions_adds_up(ask: Ask) -> None:
    _, step, kl = ask("scalars/scalars?run=b&tag=test/kl")[-1]
    each = [ask(f"scalars/scalars?run=b&tag=latent/kl_{dim}")[-1] for dim in range(3)]
    assert {point[1] for point in each} == {step}
    assert sum(point[2] for point in each) == pytest.approx(kl, rel=1e-4)


@pytest.mark.slow
def test_histograms_have_all_codes(ask: Ask) -> None:
    assert set(ask("histograms/tags")["a"]) == {"latent/means", "latent/scales", "latent/kl"}
    for tag in ("means", "scales"):
        _, _, bins = ask(f"histograms/histograms?run=a&tag=latent/{tag}")[-1]
        assert sum(count for *_, count in bins) == pytest.approx(6 * 2)  # test images, dimensions


@pytest.mark.slow
def test_images_have_one_step_for_each_epoch_drawn(ask: Ask) -> None:
    tags = ask("images/tags")
    names = ("manifold", "clusters", "pairs", "covariance", "activity", "true_posterior")
    latent = {f"latent/{name}" for name in names}
    images = {f"images/{name}" for name in ("reconstructions", "samples", "interpolation", "traversal")}
    assert set(tags["a"]) == latent | images
    assert [image["step"] for image in ask("images/images?run=a&tag=latent/manifold&sample=0")] == [7, 14, 21]


def hparams(ask: Ask) -> tuple[list[str], dict[str, Any]]:
    """The columns that the browser asks for, and the rows of all runs by their names."""
    experiment = ask("hparams/experiment", {"experimentName": ""})
    statuses = ["STATUS_UNKNOWN", "STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_RUNNING"]
    wanted = {"experimentName": "", "startIndex": 0, "sliceSize": 100, "colParams": [], "allowedStatuses": statuses}
    groups = ask("hparams/session_groups", wanted)["sessionGroups"]
    return [info["name"] for info in experiment["hparamInfos"]], {group["name"]: group for group in groups}


@pytest.mark.slow
def test_hparams_unite_the_columns_of_all_runs(ask: Ask) -> None:
    columns, groups = hparams(ask)
    assert {"latent_dim", "beta", "prior", "prior.covariance"} <= set(columns)
    assert set(groups) == {"a", "b", "c", "failed"}  # no extra runs
    assert groups["b"]["hparams"]["beta"] == 4
    assert groups["c"]["hparams"]["prior.covariance"] == "[[2.0, 0.5], [0.5, 1.0]]"
    assert "prior.covariance" not in groups["a"]["hparams"]
    assert {group["sessions"][0]["status"] for name, group in groups.items() if name != "failed"} == {"STATUS_SUCCESS"}
    assert groups["failed"]["sessions"][0]["status"] == "STATUS_FAILURE"
    metrics = [value["name"]["tag"] for value in groups["a"]["metricValues"]]
    assert metrics[:4] == ["test/total", "test/recon", "test/kl", "val/total"]
    assert "hp_metric" not in metrics


@pytest.mark.slow
def test_a_run_that_is_looked_at_alone_has_its_metrics(logdir: Path) -> None:
    ask, deadline = serve(logdir / "b"), time.monotonic() + 60
    while "test/total" not in ask("scalars/tags").get(".", {}) and time.monotonic() < deadline:
        time.sleep(0.2)
    (group,) = hparams(ask)[1].values()
    values = {value["name"]["tag"]: value["value"] for value in group["metricValues"]}
    metrics = json.loads((logdir / "b" / "metrics.json").read_text())
    assert values["test/total"] == pytest.approx(metrics["test/total"])


@pytest.mark.slow
def test_a_chart_for_each_loss_holds_all_parts(ask: Ask) -> None:
    (category,) = ask("custom_scalars/layout")["category"]
    charts = {chart["title"]: chart["multiline"]["tag"] for chart in category["chart"]}
    assert charts == {
        term: [f"{part}/{term}" for part in ("train", "val", "test")] for term in ("total", "recon", "kl", "loss")
    }


@pytest.mark.slow
def test_figures_of_the_trained_model_are_levels(ask: Ask) -> None:
    (_, first, value), (_, last, same) = ask("scalars/scalars?run=b&tag=test/total")
    assert (first, last) == (0, 14)
    assert value == same


@pytest.mark.slow
def test_texts_say_how_to_repeat_the_run(ask: Ask) -> None:
    assert {f"{name}/text_summary" for name in ("configuration", "command", "ledger")} == set(ask("text/tags")["b"])
    (text,) = ask("text/text?run=b&tag=command/text_summary")
    assert f"{program()} latent_dim=3 beta=4" in text["text"]


@pytest.mark.slow
def test_the_projector_has_codes_labels_and_dots_of_their_colours(ask: Ask, logdir: Path) -> None:
    assert set(ask("projector/runs")) == set(RUNS)
    for run in RUNS:  # two dimensions get an empty third one, which the browser's part cannot do without
        (embedding,) = ask(f"projector/info?run={run}")["embeddings"]
        assert embedding["tensorShape"] == [6, 3]
        assert embedding["metadataPath"] and embedding["sprite"]["singleImageDim"] == [DOT, DOT]
    labels = (logdir / "b/projector/labels.tsv").read_text().split("\n")[:6]
    with Image.open(logdir / "b/projector/dots.png") as image:
        sprite = np.asarray(image)
    middles = [tuple(sprite[DOT * (i // 3) + DOT // 2, DOT * (i % 3) + DOT // 2]) for i in range(6)]
    assert len(set(zip(labels, middles, strict=True))) == len(set(labels)) == len(set(middles)) > 1
    assert {middle[3] for middle in middles} == {255} and sprite[0, 0, 3] == 0


@pytest.mark.slow
def test_the_mesh_shows_three_dimensions_only(ask: Ask) -> None:
    tags = ask("mesh/tags")
    assert set(tags["b"]) == {"latent/mesh"}
    assert "a" not in tags
    meshes = [each for each in ask("mesh/meshes?run=b&tag=latent/mesh&sample=0") if each["content_type"] == 1]
    assert [mesh["step"] for mesh in meshes] == [7, 14]  # with every picture
    points = {mesh["data_shape"][1] for mesh in meshes}
    assert min(points) > 6  # test images, and the names of their classes


def test_checksums_are_those_of_the_published_check_value() -> None:
    assert pywrap_tensorflow.crc32c(b"123456789") == 0xE3069283


@pytest.mark.parametrize("masked", [True, False])
def test_an_error_behind_an_interruption_is_no_end_of_the_run(tmp_path: Path, masked: bool) -> None:
    """TensorBoard keeps to the first end that it reads, also when the run has gone on."""
    logger = RunLogger(tmp_path)
    with pytest.raises(Interrupted if masked else RuntimeError), logger.session({}, [], [], "", []):
        try:
            raise Interrupted(signal.SIGINT) if masked else OSError
        finally:
            raise RuntimeError("in a library's clearing up")
    written = [value.tag for path in tmp_path.glob("events*") for event in events_of(path) for value in event]
    assert ("_hparams_/session_end_info" in written) != masked


def events_of(path: Path) -> Iterator[Any]:
    for event in EventFileLoader(str(path)).Load():
        yield event.summary.value


def test_the_file_of_a_run_that_goes_on_is_the_last_by_name(tmp_path: Path) -> None:
    """Also where the process has begun another in this very second, whose count has fewer digits."""
    earlier = tmp_path / f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.9"
    earlier.write_bytes(b"")
    logger = RunLogger(tmp_path, purge_step=3)
    logger.log_metrics({"train/loss": 1.0}, 3)
    logger.close()
    first, last = sorted(path.name for path in tmp_path.glob("events.*"))
    assert first == earlier.name and last != earlier.name
