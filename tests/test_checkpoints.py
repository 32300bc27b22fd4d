import os
import pickle
from pathlib import Path

import pytest
import torch

import vae
from vae.build import build_model
from vae.checkpoints import FORMAT, MIGRATIONS, AtomicCheckpointIO, read, write_weights

CONFIG = {
    "latent_dim": 2,
    "conditional": False,
    "backbone": {"_target_": "vae.backbones.Dense", "latent_dim": 2, "hidden": [8, 4]},
    "prior": {"_target_": "vae.priors.Correlated", "latent_dim": 2, "covariance": [[2.0, 0.5], [0.5, 1.0]]},
    "posterior": {"_target_": "vae.posteriors.Tied", "latent_dim": 2},
    "likelihood": {"_target_": "vae.likelihoods.Gaussian", "sigma": "learned"},
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
    saved["vae"]["config"] = CONFIG | {"likelihood": {"_target_": "vae.likelihoods.Gaussian", "sigma": sigma}}
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
    saved["vae"]["config"] = CONFIG | {"likelihood": {"_target_": "torch.nn.Identity"}}
    saved["state_dict"] = {name: value for name, value in saved["state_dict"].items() if "likelihood" not in name}
    write_weights(saved, file)
    with pytest.raises(ValueError, match=r"asks for the class torch\.nn\.Identity"):
        vae.load(file)
    assert isinstance(vae.load(file, trust=True).vae.likelihood, torch.nn.Identity)


def test_safetensors_without_the_package_say_where_it_comes_from(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "model.safetensors").touch()
    monkeypatch.setattr("vae.errors.find_spec", lambda package: None)
    with pytest.raises(ValueError, match=r'^safetensors is not installed; .* "\.\[export\]"$'):
        vae.load(tmp_path / "model.safetensors")


OURS = content()


@pytest.mark.parametrize(
    "foreign",
    [
        {"state_dict": {}},
        [1, 2],
        OURS | {"vae": 3},
        OURS | {"vae": {"format": 1}},
        OURS | {"vae": OURS["vae"] | {"format": "1"}},
        OURS | {"vae": OURS["vae"] | {"format": 0}},
        OURS | {"vae": OURS["vae"] | {"config": {}}},
        {"vae": OURS["vae"]},
    ],
)
def test_a_checkpoint_of_another_program_is_refused(tmp_path: Path, foreign: object) -> None:
    torch.save(foreign, tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match=r"other\.ckpt: a checkpoint of another program$"):
        vae.load(tmp_path / "other.ckpt")


def test_weights_of_another_model_are_refused_in_one_line(tmp_path: Path) -> None:
    other = content(CONFIG | {"posterior": {"_target_": "vae.posteriors.Full", "latent_dim": 2}})
    torch.save(other | {"vae": OURS["vae"]}, tmp_path / "mixed.ckpt")
    with pytest.raises(ValueError, match=r"the checkpoint's weights are not those of its configuration") as error:
        vae.load(tmp_path / "mixed.ckpt")
    assert "\n" not in str(error.value)


def test_older_formats_are_brought_to_this_one_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    older = content(version=FORMAT - 1)
    older["vae"]["images"] = older["vae"].pop("shape")
    older["vae"]["shape"] = []  # of another meaning then
    torch.save(older, tmp_path / "older.ckpt")
    with pytest.raises(ValueError, match=rf"written by a version before the first release \(format {FORMAT - 1}\)$"):
        vae.load(tmp_path / "older.ckpt")
    monkeypatch.setitem(MIGRATIONS, FORMAT - 1, lambda about: about | {"shape": about["images"]})
    assert vae.load(tmp_path / "older.ckpt").shape == (1, 5, 7)
    assert read(tmp_path / "older.ckpt")["vae"]["format"] == FORMAT


def test_newer_formats_and_missing_files_are_refused(tmp_path: Path) -> None:
    torch.save(content(version=FORMAT + 1), tmp_path / "newer.ckpt")
    with pytest.raises(ValueError, match="written by a newer version"):
        vae.load(tmp_path / "newer.ckpt")
    with pytest.raises(ValueError, match="must be the folder of a run or a checkpoint file"):
        vae.load(tmp_path)


def test_only_this_packages_classes_are_built_unless_trusted(tmp_path: Path) -> None:
    saved = content()
    saved["vae"]["config"] = CONFIG | {"likelihood": {"_target_": "torch.nn.Identity"}}
    saved["state_dict"] = {name: value for name, value in saved["state_dict"].items() if "likelihood" not in name}
    torch.save(saved, tmp_path / "foreign.ckpt")
    with pytest.raises(ValueError, match=r"asks for the class torch\.nn\.Identity"):
        vae.load(tmp_path / "foreign.ckpt")
    assert isinstance(vae.load(tmp_path / "foreign.ckpt", trust=True).vae.likelihood, torch.nn.Identity)


def test_a_checkpoint_that_cannot_be_written_leaves_the_last_one(tmp_path: Path) -> None:
    io, path = AtomicCheckpointIO(), tmp_path / "last.ckpt"
    io.save_checkpoint({"step": 1}, path)
    with pytest.raises((pickle.PicklingError, AttributeError)):
        io.save_checkpoint({"step": 2, "bad": lambda: None}, path)
    assert torch.load(path, weights_only=True) == {"step": 1}
    assert list(tmp_path.iterdir()) == [path]
