import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from refused import CORRELATED, IMAGES, composed_once, refusal

from vae.settings.compose import composed
from vae.settings.config import check, fingerprint, flatten, plain, unusual
from vae.settings.errors import require_packages
from vae.settings.machine import check_machine

ROOT = Path(__file__).parents[2]


def test_what_is_unusual_is_what_is_not_the_default():
    assert unusual(plain(composed())) == {}
    both = {"backbone": "conv backbone", "likelihood": "gaussian likelihood"}
    assert unusual(plain(composed("backbone=conv", "likelihood=gaussian"))) == both


ACCEPTED = [
    "",
    "latent_dim=1 beta=0 epochs=1 seed=4294967295",
    "prior=correlated latent_dim=64",
    CORRELATED + "[[2.0,-0.7],[-0.7,1.5]]",
    CORRELATED + "[[2,0],[0,1]]",
    CORRELATED + "[[4]] latent_dim=1",
    "likelihood=gaussian likelihood.sigma=learned",
    "likelihood=gaussian likelihood.sigma=2",
    "likelihood=gaussian likelihood.sigma=optimal",
    "prior=mixture prior.components=1 prior.covariance=diagonal posterior=full",
    "prior=vamp prior.init=random",
    "prior=flow prior.layers=0 prior.kind=maf",
    "objective.annealing=cosine objective.warmup=0.5 objective.free_bits=0.25 objective.free_bits_per=total",
    "objective.capacity=0 objective.annealing=cyclical objective.cycles=1",
    "objective=mmd objective.alpha=-2 objective.weight=3",
    "objective=dip objective.kind=1 objective.diagonal=0 beta=0",
    IMAGES + "data.size=[64,48] data.channels=1 data.crop=140 data.flip=true",
    "data=celeba data.crop=[218,178]",
    "data=strokes data.limit=2 data.binarize=dynamic",
    "trainer.gradient_clip_val=1 trainer.precision=64-true trainer.devices=[1]",
    "+optimizer.eps=1e-9",
    "prior._target_=collections.Counter +prior.scale=2",
    "optimizer._target_=torch.optim.SGD ~optimizer.betas ~optimizer.fused +optimizer.momentum=0.9",
    "figures.only=[true_posterior,latent/manifold,losses]",
    "logger=[csv,wandb] logger.wandb.offline=false logger.wandb.tags=[a] +logger.csv.prefix=my",
    "logger=mlflow logger.mlflow.tracking_uri=http://127.0.0.1:5000 logger.mlflow.tags={a:b}",
]


@pytest.mark.parametrize("overrides", ACCEPTED)
def test_a_right_value_is_accepted_and_left_alone(overrides):
    cfg = composed(*overrides.split())
    before = OmegaConf.to_yaml(cfg)
    check(cfg)
    assert OmegaConf.to_yaml(cfg) == before


FLOATS = [
    *("beta", "data.val_fraction", "objective.warmup", "objective.free_bits", "objective.capacity", "optimizer.lr"),
    *("optimizer.weight_decay", "scheduler.warmup", "trainer.gradient_clip_val", "objective=mmd objective.alpha"),
    *("objective=mmd objective.weight", "objective=dip objective.diagonal", "objective=dip objective.off_diagonal"),
    *("likelihood=gaussian likelihood.sigma", "data=factors data.test_fraction"),
]


@pytest.mark.parametrize("key", FLOATS)
def test_a_float_that_single_precision_cannot_hold_is_refused(key):
    *choices, key = key.split()
    for value in (float("nan"), float("inf"), -float("inf"), 1e308, -1e308):
        cfg = composed_once(*choices).copy()
        OmegaConf.update(cfg, key, value)
        assert refusal(cfg.copy).startswith(f"{key}={value}: must be ")


# This machine ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "gpus", "line"),
    [
        (
            "data=images data.root={}/nowhere",
            0,
            "data.root={}/nowhere: must be a folder of images, but there is no such",
        ),
        ("data=images data.root={}/empty", 0, "data.root={}/empty: must be a folder of images"),
        ("data=images data.root={}/file", 0, "data.root={}/file: must be a folder, but it is a file"),
        ("data.root={}/file", 0, "data.root={}/file: must be a folder, but it is a file"),
        (
            "data.root='~nobody_of_this_name/x'",
            0,
            "data.root=~nobody_of_this_name/x: must be a path that can be looked at (there",
        ),
        (
            f"data.root={300 * 'd'}",
            0,
            f"data.root={300 * 'd'}: must be a path that can be looked at (File name too long)",
        ),
        ("data=factors data.file={}/nowhere.npz", 0, "data.file={}/nowhere.npz: must be an .npz file"),
        ("data=arrays data.file={}/nowhere.npz", 0, "data.file={}/nowhere.npz: must be an .npz file of images, but"),
        ("data=celeba data.root={}/empty", 0, "data.root={}/empty: must be a folder in which celeba/img_align_celeba/"),
        (
            "parent={}/missing",
            0,
            "parent={}/missing: must be the folder of a run or a checkpoint file, but there is no",
        ),
        (
            "objective=distillation objective.teacher={}/missing",
            0,
            "objective.teacher={}/missing: must be the folder of",
        ),
        ("trainer.accelerator=gpu", 0, "trainer.accelerator=gpu: must be auto or cpu, as there is no GPU"),
        ("trainer.accelerator=mps", 2, "trainer.accelerator=mps: must be auto or cpu"),
        ("trainer.devices=[1]", 0, "trainer.devices=[1]: must be a number of processes on a CPU"),
        (
            "trainer.accelerator=cpu trainer.devices=[1]",
            2,
            "trainer.devices=[1]: must be a number of processes on a CPU",
        ),
        ("trainer.devices=[7]", 2, "trainer.devices=[7]: must be indices from 0 to 1"),
        ("trainer=ddp trainer.devices=3", 2, "trainer.devices=3: must be at most 2"),
        ("trainer.precision=16-mixed", 0, "trainer.precision=16-mixed: must be 32-true or 64-true on a CPU"),
    ],
)
def test_what_this_machine_does_not_have_is_refused(tmp_path, monkeypatch, overrides, gpus, line):
    monkeypatch.setattr("sys.platform", "linux")
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    cfg = composed(*overrides.format(tmp_path).split())
    check(cfg)
    with pytest.raises(ValueError) as caught:
        check_machine(cfg, lambda: [str(index) for index in range(gpus)])
    assert str(caught.value).startswith(line.format(tmp_path))


@pytest.mark.parametrize(
    ("overrides", "gpus"),
    [
        ("trainer.devices=[1] trainer.precision=16-mixed", 2),
        ("trainer=ddp", 0),
        ("trainer=ddp trainer.devices=2 trainer.accelerator=cpu", 0),
        ("trainer=ddp trainer.devices=[0,2] trainer.accelerator=cuda", 3),
        ("data=strokes data.root={}/not_yet_there", 0),
        ("data=images data.root={}", 0),
    ],
)
def test_what_this_machine_has_is_accepted(tmp_path, overrides, gpus):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.png").touch()
    cfg = composed(*overrides.format(tmp_path).split())
    check(cfg)
    check_machine(cfg, lambda: [str(index) for index in range(gpus)])


def test_no_gpu_is_looked_for_where_none_is_asked_for(tmp_path):
    def gpus() -> list[str]:
        raise AssertionError("takes a while")

    check_machine(composed_once(), gpus)


# Plain form -----------------------------------------------------------------------------------------------------------


def kinds(content: object) -> set[type]:
    children = content.values() if isinstance(content, dict) else content if isinstance(content, list) else ()
    return {type(content)}.union(*map(kinds, children))


def test_plain_is_resolved_and_made_of_plain_types():
    content = plain(composed("latent_dim=3", "prior=correlated", "data.limit=5"))
    assert kinds(content) <= {dict, list, str, int, float, bool, type(None)}
    assert content["prior"] == {"_target_": "vae.model.priors.Correlated", "latent_dim": 3, "covariance": None}
    assert content["trainer"]["max_epochs"] == content["epochs"] == 30


def test_flatten_joins_the_keys_and_keeps_lists():
    assert flatten({"a": 1, "b": {"c": [1, {"d": 2}], "e": {"f": None}}, "g": {}}) == {
        "a": 1, "b.c": [1, {"d": 2}], "b.e.f": None,
    }  # fmt: skip


def test_a_fingerprint_is_that_of_the_content():
    assert fingerprint({"a": 1, "b": {"c": 2.5, "d": [1, 2]}}) == fingerprint({"b": {"d": [1, 2], "c": 2.5}, "a": 1})
    assert fingerprint({"a": 1}) == "f9d86028c6e0d64e"  # SHA-256 of {"a": 1}: the same in every process and version
    variants = [[], ["seed=1"], ["beta=1.5"], ["prior=correlated"], ["data.limit=5"], ["backbone.hidden=[512,255]"]]
    assert len({fingerprint(plain(composed(*overrides))) for overrides in variants}) == len(variants)


def test_loggers_are_no_part_of_what_is_trained():
    several = plain(composed("logger=[csv,mlflow,wandb]", "logger.mlflow.experiment_name=other"))
    assert list(several["logger"]) == ["csv", "mlflow", "wandb"]
    assert several["logger"]["mlflow"]["experiment_name"] == "other"
    assert fingerprint(several) == fingerprint(plain(composed())) and plain(composed())["logger"] == {}


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_the_package_of_a_logger_is_asked_for(monkeypatch, tmp_path, name):
    monkeypatch.setattr("vae.settings.errors.find_spec", lambda package: None)
    line = f'logger.{name}: {name} is not installed; it comes with: pip install -c constraints.txt -e ".[{name}]"'
    with pytest.raises(ValueError, match=f"^{re.escape(line)}$"):
        check_machine(composed(f"logger=[csv,{name}]", "data=strokes"), list)


def test_a_folder_of_a_package_s_name_is_not_the_package(monkeypatch, tmp_path):
    (tmp_path / "folder_of_its_name").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=r"^folder_of_its_name is not installed"):
        require_packages("some", "folder_of_its_name")


SAME = [
    ("beta=1", "beta=1.0"),
    (
        "latent_dim=4",
        "latent_dim='4'",
        "latent_dim=${oc.env:FOUR}",
        "latent_dim=${data.limit} data.limit=${oc.env:FOUR}",
    ),
    ("beta=4", "beta=${oc.env:FOUR}", "beta=4e0"),
    ("backbone.hidden=[4,4]", "backbone.hidden=['4','${oc.env:FOUR}']"),
    ("conditional=true", "conditional=yes", "conditional='on'", "conditional=1"),
    ("optimizer.betas=[0.0,0.5]", "optimizer.betas=[0,'0.5']"),
    ("data.name=4", "data.name='4'", "data.name=${oc.env:FOUR}"),
    ("data.digests.train-images-idx3-ubyte=4", "data.digests.train-images-idx3-ubyte='4'"),
    ("objective.capacity=4", "objective.capacity=4.0", "objective.capacity='4'"),
    ("prior=mixture prior._target_=collections.Counter prior.components=4", None),
]


@pytest.mark.parametrize("ways", SAME, ids=[ways[0] for ways in SAME])
def test_a_value_is_the_same_in_whatever_type_it_was_given(monkeypatch, ways):
    monkeypatch.setenv("FOUR", "4")
    first, *others = (way or ways[0].replace("=4", "='4'") for way in ways)
    expected = composed(*first.split())
    check(expected)
    for way in others:
        cfg = composed(*way.split())
        before = OmegaConf.to_yaml(cfg)
        check(cfg)
        assert OmegaConf.to_yaml(cfg) == before  # where ${latent_dim} stands, that remains
        found = plain(cfg) | ({"data": plain(expected)["data"]} if "data.limit" in way else {})
        assert repr(found) == repr(plain(expected)) and fingerprint(found) == fingerprint(plain(expected))


# Without torch --------------------------------------------------------------------------------------------------------


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Python in an environment where importing torch or Lightning is an error."""
    for name in ("torch", "pytorch_lightning"):
        (folder / f"{name}.py").write_text(f"raise AssertionError('{name} was imported')")
    environment = os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}
    return subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True, timeout=60
    )


def test_the_command_line_imports_no_torch(tmp_path):
    result = run(
        tmp_path, "-c", "import vae, vae.entry.cli, vae.settings.config, vae.settings.errors, vae.runs.record, train"
    )
    assert result.returncode == 0, result.stderr
    assert "torch was imported" in run(tmp_path, "-c", "import vae.model.vae").stderr


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["latent_dim=0"], "error: latent_dim=0: must be an integer from 1 to 1000000"),
        (
            ["prior=isotopic"],
            "error: prior=isotopic: no such choice; choose one of autoregressive, correlated, flow, isotropic, "
            "learned, mixture, uniform, vamp",
        ),
        (["beta=x"], "error: beta=x: must be a number from 0 to 1e+30"),
    ],
)
def test_a_refused_run_is_one_line_and_leaves_nothing(tmp_path, overrides, line):
    result = run(tmp_path, str(ROOT / "train.py"), *overrides)
    assert (result.returncode, result.stdout, result.stderr) == (1, "", f"{line}\n")
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize(
    "objective", ["iwae", "dreg", "mmd", "autoencoder", "factor", "wae_gan", "wasserstein", "renyi", "rae"]
)
def test_a_beta_that_was_typed_is_refused_where_the_loss_has_none(objective):
    cfg = composed_once(f"objective={objective}").copy()
    check(cfg, [f"objective={objective}", "seed=1"])
    for typed in ("beta=1", "++beta=1.0"):  # it would say what does not hold
        with pytest.raises(ValueError, match=r"^beta=1: must be left out, because objective=\w+ has no β$"):
            check(cfg, [typed])
    check(composed_once("objective=tc").copy(), ["beta=1"])
