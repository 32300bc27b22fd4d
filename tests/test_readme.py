"""What README shows must work as it stands there."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from vae.run import train

Compose = Callable[..., dict[str, Any]]
ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def test_the_users_own_prior_trains(tmp_path: Path, image_folder: Path) -> None:
    (module,) = [block for block in blocks("python") if "class Wide" in block]
    (command,) = [line for block in blocks("bash") for line in block.splitlines() if "mypkg.Wide" in line]
    (tmp_path / "mypkg.py").write_text(module)
    small = [
        "data=images",
        f"data.root={image_folder}",
        "data.channels=1",
        "epochs=1",
        "figures=none",
        "hydra.run.dir=run",
    ]
    arguments = [str(ROOT / "train.py"), *command.split()[2:], *small]
    environment = {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "wide prior" in done.stdout


def single_runs() -> list[str]:
    """The arguments of every shown command that trains one run of the program's own classes."""
    lines = (line.partition("#")[0] for block in blocks("bash") for line in block.splitlines())
    shown = [line.split("train.py", 1)[1].strip() for line in lines if "train.py" in line]
    return [arguments for arguments in shown if not re.search(r"resume=|mypkg|(^| )-|\"", arguments)]


@pytest.mark.parametrize("arguments", single_runs())
def test_every_single_run_composes(arguments: str, compose: Compose) -> None:
    compose(*arguments.split())


def test_the_library_is_used_as_shown(tmp_path: Path, compose: Compose, image_folder: Path) -> None:
    small = ["data=images", f"data.root={image_folder}", "data.channels=1", "epochs=1", "figures=none"]
    train(compose(*small), tmp_path / "run")
    (shown,) = [block for block in blocks("python") if "vae.load" in block]
    names = {"images": torch.rand(5, 1, 10, 12)}
    exec(shown.replace("outputs/runs/DATE/TIME_NAME", str(tmp_path / "run")), names)
    assert names["reconstructions"].shape == (5, 1, 10, 12) and names["samples"].shape == (64, 1, 10, 12)
    assert names["between"].shape == names["along"].shape == (8, 1, 10, 12) and names["anomalies"].shape == (5,)
