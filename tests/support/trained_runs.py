"""What two runs left in their folders, compared."""

from pathlib import Path
from typing import Any

import torch


def weights(folder: Path, name: str = "last") -> dict[str, Any]:
    return torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)


def without_seconds(metrics: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in metrics.items() if not name.startswith("seconds/")}


def assert_same_training(a: Path, b: Path) -> None:
    """Weights, optimiser, schedule and history are the same to the last bit."""
    first, second = weights(a), weights(b)
    for name, value in first["state_dict"].items():
        assert torch.equal(value, second["state_dict"][name]), name
    for index, state in first["optimizer_states"][0]["state"].items():
        for key, value in state.items():
            assert torch.equal(value, second["optimizer_states"][0]["state"][index][key])
    assert first["lr_schedulers"] == second["lr_schedulers"]
    assert first["global_step"] == second["global_step"]
    rows = [[{k: v for k, v in row.items() if k != "seconds"} for row in c["callbacks"]["Scalars"]["history"]]
            for c in (first, second)]  # fmt: skip
    assert rows[0] == rows[1]
