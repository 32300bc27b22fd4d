"""Runs that are trained together: each goes its own way as if it was alone, and they meet at every step.

A run is a greenlet: a function that can wait in the middle. So a run has its own trainer, callbacks, files and status,
and only one of them is at work at any time.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import copy_context
from typing import Any, NamedTuple

import torch
from greenlet import greenlet

from vae.common import signals
from vae.common.signals import Interrupted
from vae.common.terminal import Bar, bar, without_bars
from vae.data.base import Dataset
from vae.model.annealing import Count
from vae.model.noise import Fresh
from vae.model.objectives import Batch, Objective
from vae.model.vae import VAE
from vae.runs.launching import free_memory
from vae.runs.sweep import announce_slow, announce_waves
from vae.training.lane import LANE
from vae.training.speed.install import install
from vae.training.step import Descent, Means, Step, Update
from vae.training.together import Beside, Member, Stack, Together, bytes_of

log = logging.getLogger(__name__)

SHARE = 0.8  # of the memory that is free, at the most
BESIDES = 50_000_000  # bytes of the processor's memory for what a run has besides its tensors


class Waiting(NamedTuple):
    """A run's next step, which it waits for."""

    member: Member
    alone: Step  # the same step by the run itself
    batch: Batch
    step: Count
    batch_size: int  # of a whole batch

    @property
    def is_training(self) -> bool:
        return self.member.update is not None

    @property
    def kind(self) -> tuple[bool, torch.Size]:
        """What has to be the same in all that are taken together."""
        return self.is_training, self.batch.images.shape


class Lane:
    """A run among others, and what it comes to."""

    def __init__(self, train: Callable[[], Any], data: dict[str, Dataset]):
        self.train = train
        self._data = data  # of all runs, by its settings
        self.waiting: Waiting | None = None
        self.outcome: Any = None  # what `train` returns or raises; None before
        self._dtype = torch.get_default_dtype()
        self._greenlet = greenlet(self._run)
        self._greenlet.gr_context = copy_context()

    def go_on(self, means: Means | None = None) -> None:
        """Let the run work, with what came out of its step, until it waits for the next one or ends."""
        self.waiting = None
        self._greenlet.switch(means)

    def fail(self, error: BaseException) -> None:
        """Let the run's step fail."""
        self.waiting = None
        self._greenlet.throw(error)

    def _run(self, _: None) -> None:
        LANE.set(self)
        try:
            with without_bars():
                self.outcome = self.train()
        except (Interrupted, Exception) as error:
            self.outcome = error

    def data(self, settings: Mapping[str, Any], load: Callable[[], Dataset]) -> Dataset:
        """The data of these settings, which are read once for all."""
        key = json.dumps(settings, sort_keys=True)
        if key not in self._data:
            self._data[key] = load()
        return self._data[key]

    def step(self, alone: Step, vae: VAE, objective: Objective, updates: Mapping[str, Update], batch_size: int) -> Step:
        """A step of the run, or of its validation where there are no updates, which waits for the others'."""
        update = next(iter(updates.values()), None)
        assert update is None or (isinstance(update, Descent) and len(updates) == 1)
        member = Member(vae, objective, update)

        def take(batch: Batch, step: Count) -> Means:
            self.waiting = Waiting(member, alone, batch, step, batch_size)
            with _as_outside(self._dtype):
                return self._greenlet.parent.switch()

        return take


@contextmanager
def _as_outside(dtype: torch.dtype) -> Iterator[None]:
    """Leave to the others what is set for the whole process, as nobody's validation or precision is theirs."""
    with torch.inference_mode(False), torch.enable_grad(), _usual(dtype):
        yield


@contextmanager
def _usual(dtype: torch.dtype) -> Iterator[None]:
    """This is the type of numbers that have no other reason for theirs."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


class Lanes:
    """Trains runs of one shape together, as many at a time as there is room for."""

    def __init__(self, at_once: int | None = None):
        self.at_once = at_once

    def train(self, runs: Sequence[Callable[[], Any]]) -> list[Any]:
        """Train all runs; what each returns or raises, None of one that an interruption kept from beginning."""
        data: dict[str, Dataset] = {}
        lanes = [Lane(run, data) for run in runs]
        rest = deque(lanes)
        # A first signal is seen by each run after its step, which then saves and ends.
        with signals.listening(), signals.noted(patience=1):
            while rest and signals.received() is None:
                rest[0].go_on()
                count = min(len(rest), self._room(rest[0].waiting))
                if len(rest) == len(lanes):
                    _announce(rest[0].waiting, len(lanes), count)
                some = [rest.popleft() for _ in range(count)]
                for each in some[1:]:
                    if signals.received() is None:
                        each.go_on()
                Meetings([each for each in some if each.waiting is not None]).hold()
        return [each.outcome for each in lanes]

    def _room(self, waiting: Waiting | None) -> int:
        """How many runs can be trained at once that wait for such a step."""
        if waiting is None:  # it has failed
            return 1
        if self.at_once is not None:
            return self.at_once
        device = waiting.batch.images.device
        need = bytes_of(waiting.member, waiting.batch) + BESIDES
        free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else free_memory()
        return max(1, int(SHARE * free / need)) if free is not None else sys.maxsize


def _announce(waiting: Waiting | None, count: int, at_once: int) -> None:
    """Say what is to be known of how they are trained."""
    cores = os.cpu_count() or 1
    if cores > 1 and waiting is not None and waiting.batch.images.is_cpu:
        announce_slow(cores)
    if at_once < count:
        announce_waves(count, at_once)


class Meetings:
    """The steps of some lanes that wait for their first, to the last."""

    def __init__(self, lanes: Sequence[Lane]):
        self.lanes = list(lanes)
        self._fails = False  # at taking them together
        self._stack: Stack | None = None
        self._steps: dict[bool, Step] = {}  # of all, in training and in validation

    def hold(self) -> None:
        """Take steps until all lanes have ended."""
        try:
            with self._bar() as shown:
                while self.lanes:
                    is_training = self._meet()
                    shown.update(is_training)
                    self._leave()
        except BaseException as error:
            for each in self.lanes:
                if each.waiting is not None:
                    each.fail(error)
            raise

    def _bar(self) -> Bar:
        steps = [lane.waiting.member.objective.steps for lane in self.lanes if lane.waiting is not None]
        look = "{desc} {bar:24} {percentage:3.0f} % · {remaining} left"
        return bar(f"{len(self.lanes)} together", max(steps, default=0), bar_format=look)

    def _leave(self) -> None:
        """Without those that have ended the others' weights lie elsewhere, and may be taken together again."""
        rest = [lane for lane in self.lanes if lane.waiting is not None]
        if len(rest) < len(self.lanes):
            self.lanes, self._stack, self._steps, self._fails = rest, None, {}, False

    def _meet(self) -> bool:
        """Take the steps of all together; where some are at another kind of step, these, until they are at the same.

        Says whether a step of training was taken by most.
        """
        waiting = {each: each.waiting for each in self.lanes if each.waiting is not None}
        ((most, count),) = Counter(each.kind for each in waiting.values()).most_common(1)
        if count < len(waiting):
            self._one_by_one({each: its for each, its in waiting.items() if its.kind != most})
            return False
        means = None if self._fails or count == 1 else self._together(list(waiting.values()))
        if means is None:
            self._one_by_one(waiting)
        else:
            for each, values in zip(waiting, means.values.unbind(), strict=True):
                each.go_on(Means(means.names, values))
        return most[0]

    def _one_by_one(self, waiting: Mapping[Lane, Waiting]) -> None:
        for each, its in waiting.items():
            try:
                with torch.set_grad_enabled(its.is_training), _usual(its.batch.images.dtype):
                    means = its.alone(its.batch, its.step)
            except Exception as error:
                each.fail(error)
            else:
                each.go_on(means)

    def _together(self, waiting: Sequence[Waiting]) -> Means | None:
        """The means of all, beside each other; None where they cannot be had so."""
        batches = [each.batch for each in waiting]
        labels = torch.stack([batch.labels for batch in batches if batch.labels is not None])
        noise = Beside([batch.noise for batch in batches])
        batch = Batch(torch.stack([each.images for each in batches]), labels, noise)
        counts = [int(each.step) for each in waiting]
        step = counts[0] if len({*counts}) == 1 else torch.tensor(counts, device=labels.device)
        is_training = waiting[0].is_training
        try:
            with torch.set_grad_enabled(is_training), _usual(batch.images.dtype):
                if is_training not in self._steps:
                    self._steps[is_training] = self._step(waiting, noise, labels.device)
                return self._steps[is_training](batch, step)
        except RuntimeError as error:
            # One of them alone may be to blame, as whose covariances have become NaN.
            log.warning("taken one by one, because together they fail: %s", str(error).splitlines()[0])
            self._fails = True
            return None

    def _step(self, waiting: Sequence[Waiting], noise: Beside, device: torch.device) -> Step:
        members = [each.member for each in waiting]
        self._stack = self._stack or Stack([member.vae for member in members])
        updates = [member.update for member in members if member.update is not None]
        generators = [each.generator for each in noise.noises if isinstance(each, Fresh) and each.generator is not None]
        size = len(members), waiting[0].batch_size
        return install(Together(self._stack, members), updates, size, device, generators)
