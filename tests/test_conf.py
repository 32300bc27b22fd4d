"""Every YAML under conf/, found by itself: it composes, says what its class takes, and trains."""

import functools
import gzip
import inspect
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from faces import write_faces
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf
from teachers import saved

from vae.data import cifar, strokes
from vae.data.base import DataSource
from vae.data.cifar import Cifar10
from vae.data.idx import FILES, IdxFiles
from vae.data.loader import BatchLoader
from vae.model.build import build, build_model
from vae.model.objectives import Batch, Objective
from vae.settings import compose
from vae.settings.classes import ranges_of
from vae.settings.compose import CONF
from vae.settings.config import check, flatten, plain
from vae.settings.loggers import LOGGERS
from vae.settings.ranges import RANGES, TOP
from vae.training.run import train_run
from vae.use.trained import Trained

EVERY = sorted((path.parent.name, path.stem) for path in CONF.glob("*/*.yaml"))
GROUPS = [(group, name) for group, name in EVERY if group not in ("experiment", "hparams_search", "logger")]
OTHER_LOGGERS = [name for group, name in EVERY if group == "logger" and name != "tensorboard"]
EXPERIMENTS = [name for group, name in EVERY if group == "experiment"]
GIVEN = {  # what only the program knows
    "backbone": {"shape", "classes", "planes", "coded", "places"},
    "posterior": {"features", "grid", "maps"},
    "figures": {"folder", "loader", "scalars"},
    "scheduler": {"optimizer", "total_steps"},
}
OVER_CODES = [("prior", "uniform"), ("prior", "autoregressive")]
COUNTS = {"train": 40, "t10k": 20}
ARRAYS = {"train": 40, "test": 20}
BATCH = 4  # images in each of CIFAR-10's files
composed = functools.cache(compose.composed)


def chosen(group: str, name: str) -> DictConfig:
    """The default configuration but for one choice, and for top-level values that no file names."""
    data = [] if group == "data" else ["data=images"]
    codes = ["posterior=codebook"] if (group, name) in OVER_CODES else []
    beta = (
        ["beta=2.5"] if group != "objective" or name in ("elbo", "tc", "dip", "vae_gan", "distillation") else []
    )  # the others have none
    return composed(*data, *codes, f"{group}={name}", "latent_dim=3", *beta, "epochs=7")


@pytest.fixture(scope="module")
def idx_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every data set of IDX files, small."""
    root = tmp_path_factory.mktemp("idx")
    rng = np.random.default_rng(0)
    for folder in ("mnist", "fashion_mnist", "kmnist"):
        (root / folder).mkdir()
        for name in FILES:
            shape = (COUNTS[name.split("-")[0]], *((28, 28) if "images" in name else ()))
            header = struct.pack(f">I{len(shape)}I", 0x0800 + len(shape), *shape)
            content = rng.integers(0, 10, shape, dtype=np.uint8)
            (root / folder / f"{name}.gz").write_bytes(gzip.compress(header + content.tobytes()))
    return root


@pytest.fixture(scope="module")
def arrays(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small file of the name and the layout of CIFAR-10's."""
    root, rng = tmp_path_factory.mktemp("arrays"), np.random.default_rng(0)
    images: dict[str, Any] = {
        f"x_{part}": rng.integers(0, 256, (count, 8, 8, 3), np.uint8) for part, count in ARRAYS.items()
    }
    labels: dict[str, Any] = {f"y_{part}": rng.integers(0, 10, count) for part, count in ARRAYS.items()}
    np.savez(root / "cifar10.npz", **images, **labels)
    return root


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with small files of CIFAR-10 and of CelebA."""
    root, rng = tmp_path_factory.mktemp("colours"), np.random.default_rng(0)
    (root / "cifar10").mkdir()
    for name in cifar.FILES:
        records = rng.integers(0, 10, (BATCH, cifar.RECORD), np.uint8)
        (root / "cifar10" / name).write_bytes(records.tobytes())
    write_faces(root, rng.integers(0, 256, (24, 218, 178, 3), np.uint8), lambda i: i % 3)
    return root


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of the small images that others learn from."""
    config = plain(composed("data=images", "data.root=none", "latent_dim=3"))
    about = {"config": config, "shape": [3, 10, 12], "data": "images", "classes": ["a", "b"]}
    return saved(Trained(build_model(config, (3, 10, 12), 2), about), tmp_path_factory.mktemp("teacher"))


@pytest.fixture
def small(
    idx_folder: Path,
    image_folder: Path,
    sprites: Path,
    arrays: Path,
    colours: Path,
    teacher: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[DictConfig], dict]:
    """A checked configuration in its plain form, on small data without a network."""
    monkeypatch.setattr(IdxFiles, "counts", COUNTS)
    monkeypatch.setattr(Cifar10, "counts", dict.fromkeys(cifar.FILES, BATCH))
    monkeypatch.setattr(strokes, "COUNTS", {"train": 40, "test": 20})
    folders = {"vae.data.images.ImageFolder": image_folder, "vae.data.factors.FactorFile": sprites}
    folders["vae.data.arrays.ArrayFile"] = arrays
    folders |= dict.fromkeys(("vae.data.cifar.Cifar10", "vae.data.celeba.CelebA"), colours)

    def prepared(cfg: DictConfig) -> dict[str, Any]:
        cfg = cfg.copy()
        cfg.data.root = str(folders.get(cfg.data._target_, idx_folder))
        if OmegaConf.is_missing(cfg.objective, "teacher"):
            cfg.objective.teacher = str(teacher)
        check(cfg)
        config = plain(cfg)
        if "digests" in config["data"]:
            config["data"] |= {"digests": {}, "mirrors": ["http://mirror.invalid/"]}
        return config

    return prepared


def take_a_step(config: dict[str, Any]) -> None:
    """What a run does, but for one batch only, twice, and without Lightning."""
    source: DataSource = build(config, "data")
    data = source.load()
    assert data.val is not None and len(data.val)
    model = build_model(config, data.shape, len(data.classes))
    model.start_at(data.train.images / 255, data.train.labels)
    objective: Objective = build(config, "objective")
    objective.attach(model)
    objective.prepare(steps=10, epochs=config["epochs"])
    optimizer = build(config, "optimizer")([weight for weight in model.parameters() if weight.requires_grad])
    scheduler = build(config, "scheduler")(optimizer, total_steps=10)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters() if weight.requires_grad}
    x, labels = next(iter(BatchLoader(data.train, 8, shuffle=True, dynamic=source.binarize == "dynamic")))
    assert x.shape == (8, *data.shape) and (not data.classes or labels.max() < len(data.classes))
    # Layers that start at zero hide those before them from the first step; below the top level some hide others.
    for _ in range(2 if len(model.levels) == 1 else 4):
        optimizer.zero_grad()
        loss, terms = objective(model, Batch(x, labels), 1)
        loss.value.backward()
        optimizer.step()
        scheduler.step()
    assert loss.value.isfinite() and terms.total.isfinite().all()
    unmoved = {
        name for name, weight in model.named_parameters() if name in before and torch.equal(weight, before[name])
    }
    noise = {"levels.0.encoding.log_var.weight", "levels.0.encoding.log_var.bias"}  # an autoencoder has none
    fitted = {name for name in before if ".prior." in name and objective.needs.fitted_prior}
    assert unmoved == (noise if objective.needs.mean else set()) | fitted


@pytest.mark.parametrize(("group", "name"), GROUPS)
def test_a_choice_trains_a_step(group, name, small):
    take_a_step(small(chosen(group, name)))


@pytest.mark.parametrize("overrides", [[], ["backbone=conv"], ["data=strokes"]])
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_trains_a_step(name, overrides, small):
    if overrides == ["backbone=conv"] and not name.startswith("tutorial"):
        pytest.skip("a published architecture is not to be replaced")
    own = {"ladder_cifar10": "Cifar10", "vqvae_cifar10": "Cifar10", "resnet_celeba": "CelebA"}.get(name, "IdxFiles")
    if overrides == ["data=strokes"] and own != "IdxFiles":
        pytest.skip("a network for images of another size")
    cfg = composed(f"experiment={name}", *overrides)
    assert cfg.data._target_.endswith(".Strokes" if overrides == ["data=strokes"] else f".{own}")
    content = as_written(CONF / "experiment" / f"{name}.yaml")
    del content["defaults"]
    assert all(OmegaConf.select(cfg, key) == value for key, value in flatten(content).items())
    take_a_step(small(cfg))


def test_the_tutorial_s_experiments_are_the_tutorial_s():
    found = {
        name: (cfg.latent_dim, cfg.prior._target_, cfg.beta, cfg.epochs, cfg.data.batch_size, cfg.optimizer.lr)
        for name in EXPERIMENTS
        for cfg in [composed(f"experiment={name}")]
        if name.startswith("tutorial")
    }
    common = (1.0, 30, 128, 1e-3)
    assert found == {
        "tutorial_2d": (2, "vae.model.priors.Isotropic", *common),
        "tutorial_3d": (3, "vae.model.priors.Isotropic", *common),
        "tutorial_correlated": (2, "vae.model.priors.Correlated", *common),
    }


@pytest.mark.filterwarnings("ignore")  # Lightning's
@pytest.mark.parametrize("overrides", [[], ["backbone=conv", "scheduler=cosine", "data.binarize=dynamic"]])
def test_the_default_configuration_trains_a_run(overrides, small, tmp_path):
    config = small(composed("epochs=2", "data.batch_size=16", "trainer.accelerator=cpu", *overrides))
    metrics = train_run(config, tmp_path)
    assert metrics["data"] == "mnist" and metrics["epochs"] == 2
    assert metrics["test/total"] == pytest.approx(metrics["test/recon"] + metrics["test/kl"])
    assert {"best.ckpt", "last.ckpt"} <= {path.name for path in (tmp_path / "checkpoints").iterdir()}


# What a YAML says -----------------------------------------------------------------------------------------------------


def as_written(path: Path) -> dict[str, Any]:
    content: Any = OmegaConf.to_container(OmegaConf.load(path))
    assert isinstance(content, dict)
    return content


def written(group: str, name: str) -> dict[str, Any]:
    """What the YAML says itself or takes over from another YAML of its group."""
    content = as_written(CONF / group / f"{name}.yaml")
    for entry in content.pop("defaults", []):
        if isinstance(entry, str) and entry != "_self_":  # else an override of another group
            content = written(group, entry) | content
    return content.get(group, content)  # of _global_, where it also changes a key of the top level


@pytest.mark.parametrize(("group", "name"), GROUPS)
def test_a_yaml_is_its_class_and_exactly_its_arguments(group, name):
    content = written(group, name)
    target = get_object(content["_target_"])
    parameters = inspect.signature(target).parameters.values()
    arguments = {each.name for each in parameters if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)}
    keys = content.keys() - {"_target_", "_partial_"}
    if content["_target_"].startswith("vae."):
        assert keys == arguments - GIVEN.get(group, set())
    else:
        assert keys <= arguments
    # What still lacks the weights, or the number of steps, is handed on half finished.
    assert content.get("_partial_", False) == (group in ("optimizer", "scheduler"))


@pytest.mark.parametrize(("group", "name"), GROUPS)
def test_a_yaml_has_a_range_for_each_key_and_values_of_its_type(group, name):
    content = written(group, name)
    ranges = ranges_of(group, content)
    assert ranges is not None and ranges.keys() == content.keys() - {"_target_", "_partial_"}
    for key, rule in ranges.items():
        value = content[key]
        if not (isinstance(value, str) and ("${" in value or value == "???")):
            assert rule.allows(value) and type(rule.convert(value)) is type(value), key


def test_the_top_level_has_a_range_for_each_key():
    content = as_written(CONF / "config.yaml")
    assert TOP.keys() == content.keys() - {"defaults", "hydra"}
    assert all(type(rule.convert(content[key])) is type(content[key]) for key, rule in TOP.items())


@pytest.mark.parametrize(("group", "name"), GROUPS)
def test_a_yaml_repeats_no_top_level_value(group, name):
    """`latent_dim=3` must reach every part."""
    cfg = chosen(group, name)[group]
    assert cfg.get("latent_dim", 3) == 3 and cfg.get("beta", 2.5) == 2.5 and cfg.get("max_epochs", 7) == 7


def test_every_logger_is_under_its_name_with_a_range_for_each_key():
    assert as_written(CONF / "logger" / "tensorboard.yaml") == {}
    targets = []
    for name in OTHER_LOGGERS:
        [(key, node)] = as_written(CONF / "logger" / f"{name}.yaml").items()
        targets.append(node.pop("_target_"))
        assert key == name and node.keys() == LOGGERS[targets[-1]].keys()
        assert all(hasattr(get_object(target), "log_metrics") for target in targets)
        check(composed(f"logger={name}"))
    assert sorted(targets) == sorted(LOGGERS)


def test_every_group_is_known_everywhere():
    groups = {group for group, _ in GROUPS}
    cfg = composed()
    assert {*groups, "logger"} == {*RANGES, "logger"} == {key for key in cfg if isinstance(cfg[key], DictConfig)}
    used = {(group, written(group, name)["_target_"]) for group, name in GROUPS}
    assert used == {(group, target) for group, classes in RANGES.items() for target in classes}


@pytest.mark.parametrize(
    "path",
    [*CONF.glob("hydra/help/*.yaml"), *CONF.glob("hydra/*_logging/*.yaml"), *CONF.glob("hydra/sweeper/*.yaml")],
    ids=lambda path: path.parent.name,
)
def test_hydra_s_own_groups_are_used(path):
    node = OmegaConf.to_container(composed(with_hydra=True).hydra[path.parent.name])
    assert node.items() >= as_written(path).items()
