"""Short runs of every choice give the same numbers as ever, to the last bit: losses, measures, pictures and weights.

The kept figures are those of one machine. On another one, or with other versions, only the losses must be close. Where
the numbers are meant to change, or to make the figures those of another machine:
`PYTHONPATH=tests/support python tests/test_same_figures.py`.
"""

import csv
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from faces import write_faces
from matrix import RUNS, SMALL, overrides
from PIL import Image

ROOT = Path(__file__).parent.parent
FIGURES = Path(__file__).with_name("same_figures.json")
WITHOUT_RUNS = ("hparams_search", "logger")  # say which runs to make and who is told of them, not how
STOP_AT = 8  # of the 12 steps of `resumed`: within its second epoch

# `python train.py …` for each list of arguments, which imports torch only once; stopped by Ctrl+C in a step, if any.
PROGRAM = """
import itertools, json, os, runpy, signal, sys, torch

commands, stop_at = json.loads(sys.argv[1])
steps, backward = itertools.count(1), torch.Tensor.backward

def backward_and_stop(*arguments, **more):
    backward(*arguments, **more)
    if next(steps) == stop_at:
        os.kill(os.getpid(), signal.SIGINT)

if stop_at:
    torch.Tensor.backward = backward_and_stop
for sys.argv in commands:
    runpy.run_path(sys.argv[0], run_name="__main__")
"""


def make_data(root: Path) -> dict[str, dict[str, str]]:
    """Write small files of every kind; returns the SHA-256 of those that stand for MNIST and for CIFAR-10."""
    rng = np.random.default_rng(0)
    digests: dict[str, dict[str, str]] = {"mnist": {}, "cifar10": {}}
    for name in ("mnist", "fashion_mnist", "kmnist"):  # as many images as there must be, but tiny ones
        (root / name).mkdir()
        for part, count in (("train", 60_000), ("t10k", 10_000)):
            for kind, shape in (("images-idx3", (count, 6, 6)), ("labels-idx1", (count,))):
                header = np.array([0x0800 + len(shape), *shape], ">u4").tobytes()
                content = header + rng.integers(0, 10 if len(shape) == 1 else 256, shape, np.uint8).tobytes()
                (root / name / f"{part}-{kind}-ubyte").write_bytes(content)
                if name == "mnist":
                    digests[name][f"{part}-{kind}-ubyte"] = sha256(content)
    for i, image in enumerate(rng.integers(0, 256, (60, 10, 12, 3), np.uint8)):
        folder = root / "images" / "ab"[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{i}.png")
    arrays: dict[str, Any] = {
        "images": rng.integers(0, 256, (240, 8, 8), np.uint8),
        "factors": rng.normal(size=(240, 3)),
    }
    np.savez(root / "factors.npz", **arrays)
    (root / "cifar10").mkdir()
    for name in (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"):  # as many and as large as must be
        records = rng.integers(0, 256, (10_000, 1 + 3 * 32 * 32), np.uint8)
        records[:, 0] %= 10
        (root / "cifar10" / name).write_bytes(records.tobytes())
        digests["cifar10"][name] = sha256(records.tobytes())
    write_faces(root, rng.integers(0, 256, (120, 14, 12, 3), np.uint8), lambda i: max(0, i % 6 - 3))
    return digests


def train_all(folder: Path) -> None:
    """Train every run below `folder`, on one thread: their number decides how sums are rounded."""
    made = make_data(folder)
    digests = {data: ",".join(f"{name}:{digest}" for name, digest in found.items()) for data, found in made.items()}
    digests["auto"] = digests["mnist"]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    own = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONPATH": path, "VAE_DATA": str(folder)}
    own["HOME"] = str(folder)  # where a classifier is kept that one of the measures trains

    def start(*commands: list[str], stop_at: int = 0) -> int:
        """Returns the exit status."""
        whole = [[str(ROOT / "train.py"), *command] for command in commands]
        line = [sys.executable, "-c", PROGRAM, json.dumps([whole, stop_at])]
        return subprocess.run(line, cwd=folder, env=os.environ | own, stdout=subprocess.DEVNULL).returncode

    commands = {}
    for name in RUNS:
        commands[name] = overrides(name, f"hydra.run.dir=runs/{name}")
        (data,) = (word.removeprefix("data=") for word in commands[name] if word.startswith("data="))
        if data in digests:
            commands[name].append(f"data.digests={{{digests[data]}}}")
    assert start(commands.pop("resumed"), stop_at=STOP_AT) == 130
    assert start(["resume=runs/resumed"], *commands.values()) == 0


def found_in(run: Path) -> dict[str, Any]:
    """The numbers of a run's folder, but for seconds, and digests of its weights and pictures."""
    with (run / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    history = {key: [float(row[key]) for row in rows] for key in rows[0] if key != "seconds"}
    found: dict[str, Any] = {"history": history}
    for name in ("metrics", "evaluation"):
        if (path := run / f"{name}.json").exists():
            content = json.loads(path.read_text()).items()
            found[name] = {k: v for k, v in content if isinstance(v, int | float) and not k.startswith("seconds/")}
    weights = [digest_of(path) for path in sorted((run / "checkpoints").glob("*.ckpt"))]
    found["weights"] = sha256("".join(weights).encode())
    found["pictures"] = {str(path.relative_to(run)): sha256(path.read_bytes())[:16] for path in run.rglob("*.png")}
    return found


def digest_of(checkpoint: Path) -> str:
    """Of the model's weights, whatever they are called and in which order they come."""
    weights = torch.load(checkpoint, weights_only=True)["state_dict"].values()
    contents = (f"{weight.dtype} {list(weight.shape)} ".encode() + weight.numpy().tobytes() for weight in weights)
    return "".join(sorted(map(sha256, contents)))


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def machine() -> dict[str, str]:
    """What the last bits depend on, with the packages that draw data, measure and make pictures."""
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    packages = {name: version(name) for name in ("numpy", "scikit-learn", "matplotlib", "pillow")}
    capability = torch.backends.cpu.get_cpu_capability()
    return {"torch": torch.__version__, "cpu": cpu[1] if cpu else "unknown", "capability": capability, **packages}


def kept() -> dict[str, Any]:
    return json.loads(FIGURES.read_text())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All runs, trained."""
    folder = tmp_path_factory.mktemp("same_figures")
    train_all(folder)
    if machine() != kept()["machine"]:
        warnings.warn(f"only losses are compared, and only roughly: this is not {kept()['machine']}", stacklevel=1)
    return folder


def test_every_choice_has_a_run() -> None:
    chosen = {tuple(word.split("=", 1)) for words in [SMALL, *RUNS.values()] for word in words.split()}
    every = {(path.parent.name, path.stem) for path in (ROOT / "conf").glob("*/*.yaml")}
    missing = sorted(f"{group}={name}" for group, name in every - chosen if group not in WITHOUT_RUNS)
    assert not missing, f"without a run in {Path(__file__).name}: {', '.join(missing)}"
    other = sorted(kept()["runs"].keys() ^ RUNS.keys())
    assert not other, f"{FIGURES.name} is to be made anew, because it has not the same runs: {', '.join(other)}"


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_a_run_gives_the_same_figures(name: str, folder: Path) -> None:
    found, expected = found_in(folder / "runs" / name), kept()["runs"][name]
    if machine() == kept()["machine"]:
        assert found == expected
        return
    assert found["history"].keys() == expected["history"].keys()
    for column, values in expected["history"].items():
        assert found["history"][column] == pytest.approx(values, rel=1e-3), column
    assert found["metrics"] == pytest.approx(expected["metrics"], rel=1e-3)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        train_all(Path(temporary))
        runs = {name: found_in(Path(temporary) / "runs" / name) for name in RUNS}
    FIGURES.write_text(json.dumps({"machine": machine(), "runs": runs}, separators=(",", ":")) + "\n")
