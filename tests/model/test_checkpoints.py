import math
import pickle
import re
from pathlib import Path

import pytest
import torch
from models import Unbounded
from saved import CONFIG, changed, content, refusal

import vae
from vae.model.checkpoints import FORMAT, MIGRATIONS, AtomicCheckpointIO, halved, read, write_weights


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


def test_a_folder_without_checkpoints_means_the_weights_that_were_kept(tmp_path: Path) -> None:
    saved = content()
    write_weights(halved(saved), tmp_path / "weights.ckpt")
    for name, weight in vae.load(tmp_path).vae.state_dict().items():
        of_16 = saved["state_dict"][f"vae.{name}"].to(torch.float16)
        assert weight.dtype == torch.float32 and torch.equal(weight, of_16.float())
    (tmp_path / "checkpoints").mkdir()
    torch.save({**saved, "epoch": 7}, tmp_path / "checkpoints" / "last.ckpt")
    assert vae.load(tmp_path).epoch == 8


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
        ("vae.config.backbone.extra", 1, r"backbone\.extra: no such key; allowed are backbone\.below, "),
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


def test_a_checkpoint_that_cannot_be_written_leaves_the_last_one(tmp_path: Path) -> None:
    io, path = AtomicCheckpointIO(), tmp_path / "last.ckpt"
    io.save_checkpoint({"step": 1}, path)
    with pytest.raises((pickle.PicklingError, AttributeError)):
        io.save_checkpoint({"step": 2, "bad": lambda: None}, path)
    assert torch.load(path, weights_only=True) == {"step": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_what_trained_it_does_not_matter(tmp_path: Path) -> None:
    ddp = changed(
        OURS, "vae.config.trainer", {"_target_": "pytorch_lightning.Trainer", "devices": 2, "strategy": "ddp"}
    )
    torch.save(ddp, tmp_path / "a.ckpt")
    assert vae.load(tmp_path / "a.ckpt").latent_dim == 2
