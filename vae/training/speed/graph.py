"""A training step as a CUDA graph: of a small model's step on a GPU, most is the launching of its kernels."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch

from vae.model.annealing import Count
from vae.model.objectives import Batch
from vae.training.speed.adam import is_plain
from vae.training.step import Descent, Means, Step, Update

log = logging.getLogger(__name__)

WARM_UP = 3  # steps before recording, in which libraries set themselves up and Adam makes its state


class Recording(NamedTuple):
    """The kernels of a step, and the tensors that they read and write."""

    graph: torch.cuda.CUDAGraph
    batch: Batch
    means: Means
    settings: list[Mapping[str, Any]]  # of the optimisers, which cannot change


def graphed(
    step: Step,
    updates: Sequence[Update],
    size: tuple[int, ...],
    device: torch.device,
    generators: Sequence[torch.Generator] = (),
) -> Step:
    """The step, played from a recording where all of it is done on a GPU, by optimisers that need no value of it.

    `size` is how a whole batch's shape begins; `generators` are those that the step draws from beside torch's own.
    """
    if device.type != "cuda":
        return step
    known = [update for update in updates if isinstance(update, Descent) and is_plain(update.optimizer)]
    if len(known) < len(updates):
        log.debug("training steps are not recorded as a CUDA graph: 16 bits, or another optimiser than a fused Adam")
        return step
    return Graphed(step, known, size, device, generators)


class Graphed:
    """A step that is recorded with a whole batch and then played for each of that size; others are taken as they are.

    A recording knows only tensors that stay where they are: batches, rates and the step's number are copied into such.
    `tests/training/speed/test_graph.py` holds its steps beside those without a graph.
    """

    def __init__(
        self,
        step: Step,
        updates: Sequence[Descent],
        size: tuple[int, ...],
        device: torch.device,
        generators: Sequence[torch.Generator] = (),
    ):
        self.step = step
        self.size = size
        self.generators = generators
        self.groups = [group for update in updates for group in update.optimizer.param_groups]
        self.rates = [torch.zeros((), device=device) for _ in self.groups]
        self.filled: list[float] = []  # what the rates are
        self.count = torch.zeros(size[:-1], dtype=torch.int64, device=device)
        self.stream = torch.cuda.Stream(device)
        self.warm_up = WARM_UP
        self.recording: Recording | None = None
        self.fails = False

    def __call__(self, batch: Batch, step: Count) -> Means:
        self.count.copy_(step) if isinstance(step, torch.Tensor) else self.count.fill_(step)
        if self.fails or batch.images.shape[: len(self.size)] != self.size:
            return self._beside(batch)
        if self.warm_up:
            self.warm_up -= 1
            return self._beside(batch)
        if self.recording is None or self.recording.settings != self._settings():
            self.recording = self._record(batch)
        return self._beside(batch) if self.recording is None else self._play(self.recording, batch)

    def _beside(self, batch: Batch) -> Means:
        """Take a step on the stream that is going to be recorded."""
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            means = self.step(batch, self.count)
        torch.cuda.current_stream().wait_stream(self.stream)
        return means

    def _record(self, batch: Batch) -> Recording | None:
        """Take note of what the GPU is to do in a step, which is not taken; None where it has to wait for a value."""
        labels = None if batch.labels is None else batch.labels.clone()
        batch = batch._replace(images=batch.images.clone(), labels=labels)
        graph, settings, before = torch.cuda.CUDAGraph(), self._settings(), [dict(group) for group in self.groups]
        for generator in self.generators:
            graph.register_generator_state(generator)
        for group, rate in zip(self.groups, self.rates, strict=True):
            group |= {"lr": rate, "capturable": True}
        try:
            with torch.cuda.graph(graph, stream=self.stream, capture_error_mode="thread_local"):
                means = self.step(batch, self.count)
            return Recording(graph, batch, means, settings)
        except RuntimeError as error:  # in somebody's own class, say
            log.debug("training steps are not recorded as a CUDA graph: %s", error)
            self.fails = True
            return None
        finally:
            for group, values in zip(self.groups, before, strict=True):
                group.update(values)

    def _play(self, recording: Recording, batch: Batch) -> Means:
        recording.batch.images.copy_(batch.images)
        if batch.labels is not None:
            assert recording.batch.labels is not None
            recording.batch.labels.copy_(batch.labels)
        rates = [group["lr"] for group in self.groups]
        if rates != self.filled:
            self.filled = rates
            for rate, value in zip(self.rates, rates, strict=True):
                rate.fill_(value)
        recording.graph.replay()
        return recording.means._replace(values=recording.means.values.clone())  # the next replay writes there again

    def _settings(self) -> list[Mapping[str, Any]]:
        return [{name: group[name] for name in group if name not in ("params", "lr")} for group in self.groups]
