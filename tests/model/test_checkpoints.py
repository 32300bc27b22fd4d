import copy
import math
import os
import pickle
import re
import resource
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from models import Unbounded

import vae
from vae.model.build import build_model
from vae.model.checkpoints import FORMAT, MIGRATIONS, AtomicCheckpointIO, read, write_weights

CONFIG = {
    "latent_dim": 2,
    "conditional": False,
    "data": {"_target_": "vae.data.strokes.Strokes"},
    "objective": {"_target_": "vae.model.objectives.Autoencoder"},
    "backbone": {"_target_": "vae.model.backbones.Dense", "latent_dim": 2, "hidden": [8, 4], "gated": False},
    "prior": {"_target_": "vae.model.priors.Correlated", "latent_dim": 2, "covariance": [[2.0, 0.5], [0.5, 1.0]]},
    "posterior": {"_target_": "vae.model.posteriors.Tied", "latent_dim": 2},
    "likelihood": {"_target_": "vae.model.likelihoods.Gaussian", "sigma": "learned"},
}


def content(config: dict = CONFIG, version: int = FORMAT) -> dict:
    model = build_model(config, (1, 5, 7), 2)
    weights = {f"vae.{name}": weight for name, weight in model.state_dict().items()}
    about = {"format": version, "config": config, "shape": [1, 5, 7], "data": "strokes", "classes": []}
    return {"vae": about, "state_dict": weights, "epoch": 2, "global_step": 30}


def test_a_loaded_model_is_the_saved_one(tmp_path: Path) -> None:
    saved = content()
    torch.save(saved, tmp_path / "a.ckpt")
    model = vae.load(tmp_path / "a.ckpt").vae
    assert not model.training
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, saved["state_dict"][f"vae.{name}"])
    assert torch.allclose(model.prior().covariance_matrix, torch.tensor([[2.0, 0.5], [0.5, 1.0]]))
    assert model.decode(model.encode(torch.rand(3, 1, 5, 7)).mean).mean.shape == (3, 1, 5, 7)


def test_a_run_folder_means_its_best_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    torch.save(content(), tmp_path / "checkpoints" / "best.ckpt")
    assert vae.load(tmp_path).shape == (1, 5, 7)


class Hostile:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple:
        return os.system, (f"touch {self.path}",)


def test_a_hostile_file_is_refused_and_not_run(tmp_path: Path) -> None:
    victim = tmp_path / "touched"
    torch.save(content() | {"extra": Hostile(victim)}, tmp_path / "torch.ckpt")
    (tmp_path / "plain.ckpt").write_bytes(pickle.dumps(Hostile(victim)))
    for file in ("torch.ckpt", "plain.ckpt"):
        with pytest.raises(ValueError, match=f"{file}: not a readable checkpoint") as error:
            vae.load(tmp_path / file, trust=True)
        assert "\n" not in str(error.value) and "weights_only" not in str(error.value)  # how it would be run
    assert not victim.exists()


def test_nothing_is_called_that_an_interpolation_would_smuggle_in(tmp_path: Path) -> None:
    victim, saved = tmp_path / "touched", content()
    sigma = f"${{oc.create:{{_target_: numpy.savetxt, _args_: ['{victim}', [1]]}}}}"
    saved["vae"]["config"] = CONFIG | {"likelihood": {"_target_": "vae.model.likelihoods.Gaussian", "sigma": sigma}}
    torch.save(saved, tmp_path / "hostile.ckpt")
    with pytest.raises(ValueError, match=r"asks for the class \$\{oc\.create:"):
        vae.load(tmp_path / "hostile.ckpt")
    assert not victim.exists()
    with pytest.raises(ValueError, match="cannot be built"):  # trusted, it does what it says: the test above can fail
        vae.load(tmp_path / "hostile.ckpt", trust=True)
    assert victim.exists()


@pytest.mark.parametrize("keep", [0, 1, 1000])
def test_a_truncated_file_is_refused(tmp_path: Path, keep: int) -> None:
    torch.save(content(), tmp_path / "whole.ckpt")
    (tmp_path / "cut.ckpt").write_bytes((tmp_path / "whole.ckpt").read_bytes()[:keep])
    with pytest.raises(ValueError, match="not a readable checkpoint"):
        read(tmp_path / "cut.ckpt")


def test_a_single_changed_byte_of_the_weights_is_noticed(tmp_path: Path) -> None:
    saved = content()
    torch.save(saved, tmp_path / "a.ckpt")
    damaged = bytearray((tmp_path / "a.ckpt").read_bytes())
    weight = saved["state_dict"]["vae.backbone.encoder.1.weight"].numpy().tobytes()
    damaged[damaged.index(weight) + 10] ^= 1
    (tmp_path / "a.ckpt").write_bytes(damaged)
    with pytest.raises(ValueError, match=r"a\.ckpt: not a readable checkpoint \(.* is damaged\)$"):
        vae.load(tmp_path / "a.ckpt")


@pytest.mark.parametrize("name", ["model.safetensors", "model.ckpt"])
def test_weights_alone_are_read_as_the_checkpoint_is(tmp_path: Path, name: str) -> None:
    if name.endswith(".safetensors"):
        pytest.importorskip("safetensors", reason="comes with the extra export")
    saved = content() | {"epoch": 3, "global_step": 40, "optimizer_states": [torch.ones(1000)]}
    write_weights(saved, tmp_path / name, {"data": "strokes"})
    found = read(tmp_path / name)
    assert {key: found[key] for key in ("vae", "epoch", "global_step")} == {
        key: saved[key] for key in ("vae", "epoch", "global_step")
    }
    assert found.keys() == {"vae", "epoch", "global_step", "state_dict"}
    for key, weight in saved["state_dict"].items():
        assert torch.equal(found["state_dict"][key], weight)
    assert vae.load(tmp_path / name).shape == (1, 5, 7)


def test_safetensors_are_refused_like_checkpoints(tmp_path: Path) -> None:
    pytest.importorskip("safetensors", reason="comes with the extra export")
    from safetensors.torch import save_file

    file = tmp_path / "model.safetensors"
    saved = content() | {"epoch": 3, "global_step": 40}
    write_weights(saved, file)
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ValueError, match=r"model\.safetensors: not a readable checkpoint \(its weights are damaged\)$"):
        vae.load(file)
    file.write_bytes(whole[:100])
    with pytest.raises(ValueError, match=r"model\.safetensors: not a readable checkpoint"):
        vae.load(file)
    save_file({"weight": torch.ones(2)}, file, {"format": "pt"})
    with pytest.raises(ValueError, match=r"model\.safetensors: a checkpoint of another program$"):
        vae.load(file)
    saved["vae"]["config"] = CONFIG | {"likelihood": {"_target_": "models.Unbounded"}}
    saved["state_dict"] = {name: value for name, value in saved["state_dict"].items() if "likelihood" not in name}
    write_weights(saved, file)
    with pytest.raises(ValueError, match=r"asks for the class models\.Unbounded"):
        vae.load(file)
    assert isinstance(vae.load(file, trust=True).vae.likelihood, Unbounded)


def test_safetensors_without_the_package_say_where_it_comes_from(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "model.safetensors").touch()
    monkeypatch.setattr("vae.settings.errors.find_spec", lambda package: None)
    with pytest.raises(ValueError, match=r'^safetensors is not installed; .* "\.\[export\]"$'):
        vae.load(tmp_path / "model.safetensors")


OURS = content()


@pytest.mark.parametrize(
    "foreign",
    [
        {"state_dict": {}},
        [1, 2],
        OURS | {"vae": 3},
        OURS | {"vae": {"config": CONFIG}},
    ],
)
def test_a_checkpoint_of_another_program_is_refused(tmp_path: Path, foreign: object) -> None:
    torch.save(foreign, tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match=r"other\.ckpt: a checkpoint of another program$"):
        vae.load(tmp_path / "other.ckpt")


def changed(saved: dict, key: str, *value: object) -> dict:
    """The content with another value, or with none, under a key such as vae.config.prior."""
    saved = copy.deepcopy(saved)
    *path, last = key.split(".")
    node = saved
    for name in path:
        node = node[name]
    node.pop(last, None)
    if value:
        node[last] = value[0]
    return saved


def refusal(saved: object, file: Path, trust: bool = False) -> str:
    """The line by which a content is refused, in less time and memory than a model takes."""
    torch.save(saved, file)
    start = time.monotonic()
    with pytest.raises(ValueError) as error:
        vae.load(file, trust)
    assert time.monotonic() - start < 5  # on a busy machine
    line = str(error.value)
    assert "\n" not in line and len(line) < 1000
    return line


KEYS = ["state_dict", "epoch", "global_step", *(f"vae.{key}" for key in ("shape", "data", "classes", "config"))]
KEYS += [f"vae.config.{key}" for key in CONFIG]
WRONG = [None, "x\ny", -1, 2.5, [3], {"_target_": None}, [{"_target_": "os.system"}], 2**63, torch.ones(2)]


@pytest.mark.parametrize("key", KEYS)
def test_a_missing_or_wrong_key_is_named(tmp_path: Path, key: str) -> None:
    file = tmp_path / "a.ckpt"
    assert refusal(changed(OURS, key), file).startswith(f"{file}: {key}: is missing, but must be ")
    for value in WRONG:
        line = refusal(changed(OURS, key, value), file)
        is_tensor = isinstance(value, torch.Tensor) and key.startswith("vae.")
        assert line.startswith(f"{file}: vae: holds tensor(" if is_tensor else f"{file}: {key}"), line


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("vae.format", "2", r"vae\.format='2': must be an integer of at least 1$"),
        ("vae.format", 0, r"vae\.format=0: must be an integer"),
        ("vae.shape", [1, 5], r"vae\.shape=\[1, 5\]: must be \[channels, height, width\], each at least 1$"),
        ("vae.shape", [1, 0, 7], r"vae\.shape="),
        ("vae.classes", ["a\nb"], r"vae\.classes=\['a\\nb'\]: must be a list of names$"),
        ("vae.config.beta", ("a", "b"), r"vae: holds \('a', 'b'\), but must be of plain values$"),
        (
            "vae.config.figures",
            {"_target_": "vae.training.callbacks.pictures.Pictures", "grid": 3},
            r"figures\.grid=3: must be",
        ),
        (
            "vae.config.objective",
            {"_target_": "vae.model.batchwise.TC", "beta": "4"},
            r"objective\.beta='4': must be a number from 0 to 1e\+30$",
        ),
        (
            "callbacks",
            {"Scalars": {"history": [{"epoch": 1}]}},
            r"callbacks\.Scalars\.history=\[.*: must be a list of e",
        ),
        ("callbacks", [], r"callbacks=\[\]: must be"),
        ("optimizer_states", {}, r"optimizer_states=\{\}: must be a list of states$"),
        ("loops", 3, r"loops=3: must be"),
        ("state_dict", {"vae.x": torch.ones(3).to_sparse()}, r"state_dict=\{'vae\.x': .*: must be plain tensors"),
        ("state_dict", {"vae.x": torch.ones(3, device="meta")}, r"state_dict=\{'vae\.x': "),
        ("state_dict", {3: torch.ones(3)}, r"state_dict=\{3: "),
        ("vae.config.conditional", True, r"conditional=true: needs data with labels"),
        ("vae.config.latent_dim", 3, r"backbone\.latent_dim=2: must be 3, as latent_dim is$"),
        ("vae.config.prior._partial_", True, r"prior\._partial_: no such key"),
        ("vae.config.prior._args_", [], r"prior\._args_: no such key"),
        ("vae.config.prior._convert_", "all", r"prior\._convert_: no such key"),
        ("vae.config.prior._recursive_", False, r"prior\._recursive_: no such key"),
        ("vae.config.prior.latent_dim", {"_target_": "vae.model.priors.Isotropic"}, r"prior\.latent_dim=.*: must be 2"),
        ("vae.config.prior", {"_target_": "vae.model.priors.Isotropic"}, r"prior\.latent_dim: cannot be left out"),
        (
            "vae.config.prior",
            {"_target_": "vae.model.backbones.Dense"},
            r"prior\._target_=vae\.model\.backbones\.Dense: must be one of",
        ),
        ("vae.config.prior.covariance", [[1.0, 2.0], [2.0, 1.0]], r"prior\.covariance=.* positive definite"),
        ("vae.config.likelihood.sigma", [], r"likelihood\.sigma=\[\]: must be"),
        ("vae.config.backbone.hidden", 3, r"backbone\.hidden=3: must be a list of 1 to 100 integers"),
        ("vae.config.backbone.gated", 1, r"backbone\.gated=1: must be true or false$"),
        ("vae.config.backbone.gated", "yes", r"backbone\.gated='yes': must be true or false$"),
        ("vae.config.backbone.hidden", [True], r"backbone\.hidden=\[True\]: must be a list of 1 to 100 integers"),
        ("vae.config.backbone.extra", 1, r"backbone\.extra: no such key; allowed are backbone\.gated, "),
        ("vae.config.likelihood.sigma", math.nan, r"likelihood\.sigma=nan: must be a number above 0"),
    ],
)
def test_a_wrong_value_is_refused_in_one_line(tmp_path: Path, key: str, value: object, message: str) -> None:
    line = refusal(changed(OURS, key, value), tmp_path / "a.ckpt")
    assert re.search(message, line), line


def test_parts_that_do_not_fit_each_other_are_refused(tmp_path: Path) -> None:
    vamp = {"_target_": "vae.model.priors.Vamp", "latent_dim": 2, "components": 3, "init": "images"}
    config = CONFIG | {"prior": vamp, "posterior": {"_target_": "vae.model.posteriors.Diagonal", "latent_dim": 2}}
    saved = content(config | {"conditional": True})
    saved["vae"]["classes"] = ["a", "b"]
    torch.save(saved, tmp_path / "a.ckpt")
    assert vae.load(tmp_path / "a.ckpt").sample(2, labels="a").isfinite().all()
    saved["state_dict"]["vae.levels.0.prior.labels"] += 7
    assert "the checkpoint's model is of no use (" in refusal(saved, tmp_path / "a.ckpt")


def a_million_references() -> list:
    """Lists of lists of lists, of which there are few, but many ways to them."""
    many: list = []
    for _ in range(15):
        many = [many] * 10
    return many


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("vae.config.latent_dim", 10**9, "latent_dim=2: must be 1000000000"),
        ("vae.shape", [1, 10**6, 10**6], "shape=.*at most 4,194,304"),
        ("vae.shape", [1, 2000, 2000], "more or larger than the file has weights for"),
        ("vae.config.backbone.hidden", [1] * 200_000, r"backbone\.hidden=\[1, 1.*a list of 1 to 100 integers"),
        ("vae.config.backbone.hidden", [10**6] * 100, "more or larger than the file has weights for"),
        ("vae.config.backbone.hidden", [1] * 100, "more or larger than the file has weights for"),
        ("vae.config.backbone.hidden", a_million_references(), "vae: holds more than 2,097,152 values"),
        (
            "vae.config.backbone.hidden",
            [0] * 3_000_000,
            "it holds more than a checkpoint does|more than 2,097,152 values",
        ),
        (
            "vae.config.prior",
            {"_target_": "vae.model.priors.Mixture", "latent_dim": 2, "components": 100_000, "covariance": "full"},
            "more or larger than the file has weights for",
        ),
        (
            "vae.config.prior",
            {"_target_": "vae.model.priors.Vamp", "latent_dim": 2, "components": 100_000, "init": "random"},
            "more or larger than the file has weights for",
        ),
        (
            "vae.config.prior",
            {"_target_": "vae.model.priors.Flow", "latent_dim": 2, "kind": "maf", "layers": 100, "hidden": [10] * 100},
            "more or larger than the file has weights for",
        ),
        (
            "vae.config.prior",
            {"_target_": "vae.model.priors.Flow", "latent_dim": 2, "kind": "maf", "layers": 1, "hidden": [10**6]},
            r"prior\.hidden=\[1000000\]: must be no more than the file has weights for",
        ),
        ("vae.extra", [["x" * 10**6] * 10] * 10, "vae: holds more than 2,097,152 values"),
        ("vae.extra", a_million_references(), "vae: holds more than 2,097,152 values"),
    ],
)
def test_a_small_file_that_asks_for_much_is_refused_at_once(
    tmp_path: Path, key: str, value: object, message: str
) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    line = refusal(changed(OURS, key, value), tmp_path / "a.ckpt")
    assert re.search(message, line), line
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # KiB


def test_covariances_take_memory_that_no_weight_shows(tmp_path: Path) -> None:
    names = ("backbone", "prior", "posterior")
    config = CONFIG | {"latent_dim": 3000} | {name: CONFIG[name] | {"latent_dim": 3000} for name in names}
    config["prior"] = {"_target_": "vae.model.priors.Isotropic", "latent_dim": 3000}
    config["posterior"] = {"_target_": "vae.model.posteriors.Diagonal", "latent_dim": 3000}
    saved = content(config)
    torch.save(saved, tmp_path / "a.ckpt")
    assert vae.load(tmp_path / "a.ckpt").latent_dim == 3000
    saved["vae"]["config"]["prior"] = {
        "_target_": "vae.model.priors.Correlated",
        "latent_dim": 3000,
        "covariance": None,
    }
    expected = "latent_dim=3000: must be at most 2,048 with covariances; more takes trust=True"
    assert expected in refusal(saved, tmp_path / "b.ckpt")


def test_weights_that_share_their_numbers_are_no_more_than_those(tmp_path: Path) -> None:
    small = torch.ones(1000)
    wide = changed(OURS, "vae.config.backbone.hidden", [100_000, 4])
    for name in ("encoder.1.weight", "encoder.1.bias", "decoder.2.weight", "decoder.2.bias", "decoder.4.weight"):
        wide["state_dict"][f"vae.backbone.{name}"] = torch.ones(1).expand(100_000, 35)
    assert "more or larger than the file has weights for" in refusal(wide, tmp_path / "a.ckpt")
    saved = changed(OURS, "state_dict", {f"vae.{i}": small.as_strided((1000, 1000), (0, 1)) for i in range(1000)})
    assert "the checkpoint's weights are not those of its configuration" in refusal(saved, tmp_path / "a.ckpt")


def test_a_long_history_is_read(tmp_path: Path) -> None:
    names = ("loss", "recon", "kl", "total")
    row = {"epoch": 1, "seconds": 1.5} | {f"{part}/{name}": 1 / 3 for part in ("train", "val") for name in names}
    history = [row | {"epoch": epoch} for epoch in range(20_000)]
    torch.save(OURS | {"callbacks": {"Scalars": {"history": history}}}, tmp_path / "a.ckpt")
    assert read(tmp_path / "a.ckpt")["callbacks"]["Scalars"]["history"] == history


def repacked(file: Path, compression: int = zipfile.ZIP_STORED, **changed: bytes) -> None:
    """Write the archive again, with other records and in another way."""
    with zipfile.ZipFile(file) as parts:
        records = {name: parts.read(name) for name in parts.namelist()}
    with zipfile.ZipFile(file, "w", compression) as parts:
        for name, each in records.items():
            parts.writestr(name, changed.get(name.rpartition("/")[2].removesuffix(".pkl"), each))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"compression": zipfile.ZIP_DEFLATED, "data": bytes(2**28)}, "its records are packed"),
        ({"serialization_id": b"PK\x01\x02" * 70_000}, "more than 65,536 records"),  # how each is announced
        ({"data": b"\x80\x02" + b"]" * 2**22}, "besides weights it holds more than a checkpoint does"),
        ({"data": b"\x80\x02" + bytes(2**25)}, "besides weights it holds more than a checkpoint does"),
    ],
    ids=["bomb", "records", "lists", "long"],
)
def test_an_archive_that_unpacks_to_much_is_refused_at_once(tmp_path: Path, how: dict, message: str) -> None:
    torch.save(OURS, file := tmp_path / "a.ckpt")
    repacked(file)
    assert vae.load(file).shape == (1, 5, 7)
    repacked(file, **how)
    start = time.monotonic()
    with pytest.raises(ValueError, match=rf"a\.ckpt: not a readable checkpoint \({message}"):
        vae.load(file)
    assert time.monotonic() - start < 5


def test_records_that_overlap_are_refused(tmp_path: Path) -> None:
    """As in archives of few bytes in which every record is the same gigabyte."""
    torch.save(OURS, file := tmp_path / "a.ckpt")
    with zipfile.ZipFile(file) as parts:
        largest = max(parts.infolist(), key=lambda record: record.file_size)
        start = largest.header_offset
    with zipfile.ZipFile(file, "a") as parts:
        for i in range(1000):
            again = copy.copy(largest)
            again.header_offset = start
            parts.filelist.append(again)
            parts.NameToInfo[f"{i}"] = again
        parts._didModify = True  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="its records overlap"):
        read(file)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_named(tmp_path: Path, value: float) -> None:
    saved = copy.deepcopy(OURS)
    saved["state_dict"]["vae.levels.0.encoding.mean.weight"][0, 1] = value
    line = refusal(saved, tmp_path / "last.ckpt")
    assert (
        line == "the checkpoint's weights levels.0.encoding.mean.weight are not finite: "
        "its training diverged, or it was changed since"
    )


@pytest.mark.parametrize("kind", [torch.complex64, torch.int8, torch.bool])
def test_weights_of_another_kind_are_refused(tmp_path: Path, kind: torch.dtype) -> None:
    saved = copy.deepcopy(OURS)
    saved["state_dict"]["vae.levels.0.encoding.mean.bias"] = torch.ones(2).to(kind)
    assert f"weights levels.0.encoding.mean.bias are {kind}" in refusal(saved, tmp_path / "a.ckpt")


def test_weights_beyond_all_bounds_are_refused(tmp_path: Path) -> None:
    saved = copy.deepcopy(OURS)
    saved["state_dict"] = {name: weight * 1e38 for name, weight in saved["state_dict"].items()}
    assert "the checkpoint's" in refusal(saved, tmp_path / "a.ckpt")


def test_a_trusted_class_that_cannot_be_built_says_so_in_one_line(tmp_path: Path) -> None:
    saved = changed(OURS, "vae.config.prior", {"_target_": "torch.nn.Linear", "in_features": "many"})
    line = refusal(saved, tmp_path / "a.ckpt", trust=True)
    assert line.startswith("prior._target_=torch.nn.Linear: cannot be built (")
    saved = changed(OURS, "vae.config.prior", {"_target_": "torch.nn.Identity", "_partial_": True})
    line = refusal(saved, tmp_path / "a.ckpt", trust=True)
    assert line.startswith("prior._target_=torch.nn.Identity: must be a vae.model.priors.Prior, but is a ")


def test_weights_of_another_model_are_refused_in_one_line(tmp_path: Path) -> None:
    other = content(CONFIG | {"posterior": {"_target_": "vae.model.posteriors.Full", "latent_dim": 2}})
    torch.save(other | {"vae": OURS["vae"]}, tmp_path / "mixed.ckpt")
    with pytest.raises(ValueError, match=r"the checkpoint's weights are not those of its configuration") as error:
        vae.load(tmp_path / "mixed.ckpt")
    assert "\n" not in str(error.value)


def test_older_formats_are_brought_to_this_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MIGRATIONS.keys() == set(range(1, FORMAT))
    older = content(version=FORMAT)
    older["vae"]["images"] = older["vae"].pop("shape")
    older["vae"]["shape"] = []  # of another meaning then
    torch.save(older, tmp_path / "older.ckpt")
    monkeypatch.setattr("vae.model.checkpoints.FORMAT", FORMAT + 1)
    monkeypatch.setitem(MIGRATIONS, FORMAT, lambda about: about | {"shape": about["images"]})
    assert vae.load(tmp_path / "older.ckpt").shape == (1, 5, 7)
    assert read(tmp_path / "older.ckpt")["vae"]["format"] == FORMAT + 1


def test_newer_formats_and_missing_files_are_refused(tmp_path: Path) -> None:
    torch.save(content(version=FORMAT + 1), tmp_path / "newer.ckpt")
    with pytest.raises(ValueError, match="written by a newer version"):
        vae.load(tmp_path / "newer.ckpt")
    with pytest.raises(ValueError, match="must be the folder of a run or a checkpoint file"):
        vae.load(tmp_path)


def test_only_this_packages_classes_are_built_unless_trusted(tmp_path: Path) -> None:
    saved = content()
    saved["vae"]["config"] = CONFIG | {"likelihood": {"_target_": "models.Unbounded"}}
    saved["state_dict"] = {name: value for name, value in saved["state_dict"].items() if "likelihood" not in name}
    torch.save(saved, tmp_path / "foreign.ckpt")
    with pytest.raises(ValueError, match=r"asks for the class models\.Unbounded"):
        vae.load(tmp_path / "foreign.ckpt")
    assert isinstance(vae.load(tmp_path / "foreign.ckpt", trust=True).vae.likelihood, Unbounded)


def test_a_checkpoint_that_cannot_be_written_leaves_the_last_one(tmp_path: Path) -> None:
    io, path = AtomicCheckpointIO(), tmp_path / "last.ckpt"
    io.save_checkpoint({"step": 1}, path)
    with pytest.raises((pickle.PicklingError, AttributeError)):
        io.save_checkpoint({"step": 2, "bad": lambda: None}, path)
    assert torch.load(path, weights_only=True) == {"step": 1}
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("asked", [{}, {"weights_only": None}, {"weights_only": False}], ids=str)
def test_going_on_runs_no_code_of_the_file_whatever_lightning_asks_for(asked: dict[str, Any], tmp_path: Path) -> None:
    io, path = AtomicCheckpointIO(), tmp_path / "last.ckpt"
    io.save_checkpoint({"step": 1}, path)
    assert io.load_checkpoint(path, **asked) == {"step": 1}
    io.save_checkpoint({"step": Path("/")}, path)
    with pytest.raises(pickle.UnpicklingError):
        io.load_checkpoint(path, **asked)


def test_what_trained_it_does_not_matter(tmp_path: Path) -> None:
    ddp = changed(
        OURS, "vae.config.trainer", {"_target_": "pytorch_lightning.Trainer", "devices": 2, "strategy": "ddp"}
    )
    torch.save(ddp, tmp_path / "a.ckpt")
    assert vae.load(tmp_path / "a.ckpt").latent_dim == 2
