"""The data that a checkpoint's content describes, as far as a stranger's may ask for them."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from vae.data.auto import Auto
from vae.data.base import DEFAULT_ROOT, DataError
from vae.data.idx import IdxFiles
from vae.model.restored import data_of
from vae.settings.compose import CONF
from vae.settings.errors import LONGEST


def described(image_folder: Path, compose, *overrides: str, **data: object) -> dict:
    """What a run on these images says of itself, with other values of its data."""
    config = compose("data=images", f"data.root={image_folder}", "data.channels=1", *overrides)
    config["data"] |= data
    return {"config": config, "shape": [1, 10, 12], "data": "images", "classes": ["a", "b"]}


def test_the_data_of_a_run_are_found(image_folder: Path, compose) -> None:
    source, data = data_of(described(image_folder, compose))
    assert len(data.test) == 6 and source.batch_size == 128


def test_data_in_the_default_place_are_where_it_is_now(image_folder: Path, compose, monkeypatch) -> None:
    about = described(image_folder, compose, root=DEFAULT_ROOT)
    monkeypatch.setenv("VAE_DATA", str(image_folder))
    assert len(data_of(about)[1].test) == 6
    monkeypatch.setenv("VAE_DATA", "/nowhere")
    assert len(data_of(about, str(image_folder))[1].test) == 6
    with pytest.raises(DataError, match="/nowhere"):
        data_of(about)


def test_a_root_that_no_system_allows_is_one_line(image_folder: Path, compose) -> None:
    with pytest.raises(DataError) as refused:
        data_of(described(image_folder, compose, root="x" * 100_000))
    assert "too long" in str(refused.value) and len(str(refused.value)) <= LONGEST


def test_the_default_place_is_that_of_the_yamls() -> None:
    roots = {str(OmegaConf.to_container(OmegaConf.load(path)).get("root")) for path in (CONF / "data").glob("*.yaml")}
    assert f"${{oc.env:VAE_DATA,'{DEFAULT_ROOT}'}}" in roots


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": "8"}, "^data.batch_size='8': must be an integer from 1 to 1000000$"),
        ({"batch_size": 0}, "^data.batch_size=0: must be"),
        ({"_partial_": True}, "^data._partial_: no such key"),
        ({"_args_": ["/"]}, "^data._args_: no such key"),
        ({"limit": {"_target_": "os.system"}}, "asks for the data source"),
        ({"root": "${oc.env:HOME}"}, "asks for the data source"),
        ({"root": None}, "^data.root=None: must be a text$"),
        ({"size": [10_000, 10_000]}, r"^data.size=\[10000, 10000\]: must be \[10, 12\], as the model's images are$"),
        ({"crop": 10_000}, r"^data.size=\[10000, 10000\]: must be \[10, 12\], as the model's images are$"),
        ({"_target_": "vae.data.base.DataSource"}, "^data._target_=vae.data.base.DataSource: must be one of vae.data."),
    ],
)
def test_data_that_a_file_may_not_ask_for(image_folder: Path, compose, changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        data_of(described(image_folder, compose, **changes))


@pytest.mark.parametrize(("key", "value"), [("data", "x" * 10**6), ("classes", ["a", "x" * 10**6])])
def test_other_data_are_refused_in_a_line_of_any_names(image_folder: Path, compose, key: str, value: object) -> None:
    with pytest.raises(ValueError, match=r"^the run was trained on .* where the data are$") as told:
        data_of(described(image_folder, compose) | {key: value})
    assert len(str(told.value)) <= LONGEST


def test_a_file_of_factors_lies_below_its_root(compose, tmp_path: Path) -> None:
    about = {"config": compose("data=factors", f"data.root={tmp_path / 'data'}", "data.file=../outside.npz")}
    about |= {"shape": [1, 10, 12], "data": "factors", "classes": []}
    with pytest.raises(ValueError, match=r"^data\.file=\.\./outside\.npz: must lie below data\.root"):
        data_of(about)
    with pytest.raises(DataError, match="there is no file"):
        data_of(about, trust=True)


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "of a stranger"])
@pytest.mark.parametrize("data", ["mnist", "auto"])
def test_nothing_is_downloaded_from_where_a_file_says(
    compose, tmp_path: Path, monkeypatch, data: str, name: str
) -> None:
    asked = []

    def read(source: IdxFiles) -> None:
        asked.append(source)
        raise DataError("enough")

    monkeypatch.setattr(IdxFiles, "read", read)
    monkeypatch.setattr(Auto, "read", read)
    config = compose(f"data={data}", "data.mirrors=[http://stranger.invalid/]", f"data.root={tmp_path}")
    config["data"] |= {"name": name, "digests": {"train-images-idx3-ubyte": "0"}}
    about = {"config": config, "shape": [1, 28, 28], "data": name, "classes": list(config["data"]["classes"])}
    for trust in (False, True):
        with pytest.raises(DataError, match="enough"):
            data_of(about, trust=trust)
    ours, theirs = asked
    assert list(theirs.mirrors) == ["http://stranger.invalid/"]
    own = compose(f"data={name}")["data"] if " " not in name else {"mirrors": [], "digests": {}}
    assert (list(ours.mirrors), ours.digests) == (own["mirrors"], own["digests"])
