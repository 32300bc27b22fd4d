from pathlib import Path
from typing import Any

import pytest
import torch

from vae.training.report import closing, device_name


@pytest.mark.parametrize(("count", "name"), [(1, "CPU (1 thread)"), (2, "CPU (2 threads)")])
def test_threads_are_counted(count, name, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: count)
    assert device_name(torch.device("cpu")) == name


def test_bits_stand_beside_nats_where_there_are_any(tmp_path: Path) -> None:
    terms = {f"{part}/{term}": 1.0 for part in ("train", "val", "test") for term in ("total", "recon", "kl")}
    metrics: dict[str, Any] = {**terms, "epoch": 1, "epochs": 2, "seconds/fit": 3.0, "data": "images"}
    metrics |= {"val/total_error": 0.5, "test/total_error": 0.25}

    def rows() -> list[str]:
        return [line.rstrip() for line in closing({"report": "best", "data": {}}, metrics, tmp_path).splitlines()[1:6]]

    assert rows()[0].split() == ["nats", "per", "image", "total", "recon", "kl", "±"]
    metrics |= {f"{part}/bits_per_dim": bits for part, bits in (("train", 3.2), ("val", 3.3), ("test", 3.45678))}
    head, _, train, _, test = rows()
    assert head.split()[3:] == ["total", "recon", "kl", "±", "bits/dim"] and test.split()[-2:] == ["0.25", "3.4568"]
    assert len(head) == len(train) == len(test) and train.split()[-2:] == ["1.00", "3.2000"]


def test_the_closing_table_names_the_next_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "outputs" / "a b"
    terms = {f"{part}/{term}": 1.0 for part in ("train", "val", "test") for term in ("total", "recon", "kl")}
    metrics = {**terms, "epoch": 1, "epochs": 2, "seconds/fit": 3.0, "data": "images"}

    def steps() -> list[str]:
        return closing({"report": "best", "data": {}}, metrics, folder).splitlines()[-4:]

    explore = ["explore    python scripts/explore.py 'outputs/a b'", "look       tensorboard --logdir outputs"]
    assert steps()[1:] == ["run        outputs/a b", *explore]  # without pictures
    (folder / "figures").mkdir(parents=True)
    assert steps() == ["run        outputs/a b", "pictures   outputs/a b/figures/", *explore]
