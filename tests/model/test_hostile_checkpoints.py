"""Files that would run code, take memory or time, or hold nonsense."""

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
from saved import CONFIG, changed, content, refusal

import vae
from vae.model.checkpoints import AtomicCheckpointIO, read


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


OURS = content()


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
        ("vae.config.backbone.below", [10**6] * 50, "more or larger than the file has weights for"),
        ("vae.config.backbone.hidden", a_million_references(), "vae: holds more than 2,097,152 values"),
        (
            "vae.config.backbone",
            {"_target_": "vae.model.resnet.Resnet", "latent_dim": 2, "channels": [8], "depth": 1000}
            | {"groups": None, "attention": [], "gated": False, "below": []},
            "more or larger than the file has weights for",
        ),
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
        parts._didModify = True
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


def test_only_this_packages_classes_are_built_unless_trusted(tmp_path: Path) -> None:
    saved = content()
    saved["vae"]["config"] = CONFIG | {"likelihood": {"_target_": "models.Unbounded"}}
    saved["state_dict"] = {name: value for name, value in saved["state_dict"].items() if "likelihood" not in name}
    torch.save(saved, tmp_path / "foreign.ckpt")
    with pytest.raises(ValueError, match=r"asks for the class models\.Unbounded"):
        vae.load(tmp_path / "foreign.ckpt")
    assert isinstance(vae.load(tmp_path / "foreign.ckpt", trust=True).vae.likelihood, Unbounded)


@pytest.mark.parametrize("asked", [{}, {"weights_only": None}, {"weights_only": False}], ids=str)
def test_going_on_runs_no_code_of_the_file_whatever_lightning_asks_for(asked: dict[str, Any], tmp_path: Path) -> None:
    io, path = AtomicCheckpointIO(), tmp_path / "last.ckpt"
    io.save_checkpoint({"step": 1}, path)
    assert io.load_checkpoint(path, **asked) == {"step": 1}
    io.save_checkpoint({"step": Path("/")}, path)
    with pytest.raises(pickle.UnpicklingError):
        io.load_checkpoint(path, **asked)
