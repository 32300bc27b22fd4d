"""What the processes of one training tell each other in a step; of a single one, nothing."""

from __future__ import annotations

import torch
from torch import Tensor, distributed


def summed(values: Tensor) -> Tensor:
    """The sum over all processes."""
    if _several():
        values = values.clone()
        distributed.all_reduce(values)
    return values


def position_among(count: int) -> tuple[int, int]:
    """Where this process's `count` things begin among those of all processes in turn, and how many those are."""
    if not _several():
        return 0, count
    counts = torch.zeros(distributed.get_world_size(), dtype=torch.int64)
    counts[distributed.get_rank()] = count
    device = torch.device("cuda", torch.cuda.current_device()) if distributed.get_backend() == "nccl" else "cpu"
    counts = summed(counts.to(device)).cpu()
    return int(counts[: distributed.get_rank()].sum()), int(counts.sum())


def _several() -> bool:
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1
