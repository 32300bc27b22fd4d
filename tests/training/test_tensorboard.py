"""TensorBoard's own server over three runs: what a browser gets from every plugin."""

import json
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tensorboard.compat.tensorflow_stub import pywrap_tensorflow
from tensorboard.program import TensorBoard

from vae.runs.record import recorded
from vae.settings.compose import program
from vae.training.run import train_run
from vae.training.tensorboard import hyperparameters

Ask = Callable[..., Any]
RUNS = {
    "a": ["latent_dim=2"],
    "b": ["latent_dim=3", "beta=4"],
    "c": ["latent_dim=2", "prior=correlated", "prior.covariance=[[2.0,0.5],[0.5,1.0]]"],
}


@pytest.fixture(scope="module")
def ask(tmp_path_factory: pytest.TempPathFactory, compose: Any, image_folder: Path) -> Iterator[Ask]:
    """Asks a plugin of a server over finished runs a, b, c and a failed one."""
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

    deadline = time.monotonic() + 60  # the server reads the files in the background
    while time.monotonic() < deadline:
        scalars = get("scalars/tags")
        if len(get("text/tags")) == 4 and all("test/total" in scalars.get(run, {}) for run in RUNS):
            break
        time.sleep(0.2)
    yield get


@pytest.mark.slow
def test_scalars(ask: Ask) -> None:
    losses = {f"{part}/{term}" for part in ("train", "val", "test") for term in ("loss", "total", "recon", "kl")}
    for run in RUNS:
        assert set(ask("scalars/tags")[run]) == losses


@pytest.mark.slow
def test_images_have_one_step_for_each_epoch_drawn(ask: Ask) -> None:
    tags = ask("images/tags")
    names = ("manifold", "clusters", "pairs", "covariance", "activity", "true_posterior")
    latent = {f"latent/{name}" for name in names}
    images = {f"images/{name}" for name in ("reconstructions", "samples", "interpolation", "traversal")}
    assert set(tags["a"]) == latent | images | {"curves/losses"}
    assert [image["step"] for image in ask("images/images?run=a&tag=latent/manifold&sample=0")] == [7, 14, 21]


@pytest.mark.slow
def test_hparams_unite_the_columns_of_all_runs(ask: Ask) -> None:
    experiment = ask("hparams/experiment", {"experimentName": ""})
    assert {"latent_dim", "beta", "prior", "prior.covariance"} <= {info["name"] for info in experiment["hparamInfos"]}
    wanted = {"experimentName": "", "startIndex": 0, "sliceSize": 100, "colParams": []}
    statuses = ["STATUS_UNKNOWN", "STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_RUNNING"]
    groups = {
        group["name"]: group
        for group in ask("hparams/session_groups", wanted | {"allowedStatuses": statuses})["sessionGroups"]
    }
    assert set(groups) == {"a", "b", "c", "failed"}  # no extra runs
    assert groups["b"]["hparams"]["beta"] == 4
    assert groups["c"]["hparams"]["prior.covariance"] == "[[2.0, 0.5], [0.5, 1.0]]"
    assert "prior.covariance" not in groups["a"]["hparams"]
    assert {group["sessions"][0]["status"] for name, group in groups.items() if name != "failed"} == {"STATUS_SUCCESS"}
    assert groups["failed"]["sessions"][0]["status"] == "STATUS_FAILURE"
    metrics = {value["name"]["tag"] for value in groups["a"]["metricValues"]}
    assert {"test/total", "val/total"} <= metrics
    assert "hp_metric" not in metrics


@pytest.mark.slow
def test_one_chart_holds_all_losses(ask: Ask) -> None:
    (category,) = ask("custom_scalars/layout")["category"]
    assert set(category["chart"][0]["multiline"]["tag"]) == {
        f"{part}/{term}" for part in ("train", "val") for term in ("total", "recon", "kl")
    }


@pytest.mark.slow
def test_texts_say_how_to_repeat_the_run(ask: Ask) -> None:
    assert {f"{name}/text_summary" for name in ("configuration", "command", "ledger")} == set(ask("text/tags")["b"])
    (text,) = ask("text/text?run=b&tag=command/text_summary")
    assert f"{program()} latent_dim=3 beta=4" in text["text"]


@pytest.mark.slow
def test_the_projector_has_codes_labels_and_sprites(ask: Ask) -> None:
    assert set(ask("projector/runs")) == set(RUNS)
    for run in RUNS:  # two dimensions get an empty third one, which the browser's part cannot do without
        (embedding,) = ask(f"projector/info?run={run}")["embeddings"]
        assert embedding["tensorShape"] == [6, 3]
        assert embedding["metadataPath"] and embedding["sprite"]["singleImageDim"] == [12, 10]


@pytest.mark.slow
def test_the_mesh_shows_three_dimensions_only(ask: Ask) -> None:
    tags = ask("mesh/tags")
    assert set(tags["b"]) == {"latent/mesh"}
    assert "a" not in tags
    (mesh,) = [each for each in ask("mesh/meshes?run=b&tag=latent/mesh&sample=0") if each["content_type"] == 1]
    assert mesh["data_shape"] == [1, 6, 3]


def test_hyperparameters_name_choices_and_what_was_overridden(compose: Any) -> None:
    overrides = ["prior=correlated", "experiment=tutorial_2d", "optimizer.lr=0.01", "data.limit=50"]
    columns = hyperparameters(compose(*overrides), overrides)
    assert columns["prior"] == "correlated"
    assert columns["optimizer.lr"] == 0.01
    assert columns["data.limit"] == 50
    assert columns["latent_dim"] == 2
    assert "experiment" not in columns and "trainer" not in columns


def test_checksums_are_those_of_the_published_check_value() -> None:
    assert pywrap_tensorflow.crc32c(b"123456789") == 0xE3069283
