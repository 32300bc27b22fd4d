"""What the stress tests share: how long they take, their seed, and where their figures are kept."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

Rounds = Callable[..., Iterator[random.Random]]


@pytest.fixture
def rounds(request: pytest.FixtureRequest) -> Iterator[Rounds]:
    """Random generators, one for each case, until `share` of the time is over, and at least `least` of them.

    Each depends on nothing but the seed, the test and the case's number, so that a failure can be repeated.
    """
    minutes, seed = request.config.getoption("--stress-minutes"), request.config.getoption("--stress-seed")
    start, count = time.monotonic(), 0

    def generate(share: float, least: int) -> Iterator[random.Random]:
        nonlocal count
        while count < least or time.monotonic() - start < 60 * minutes * share:
            yield random.Random(f"{seed} {request.node.name} {count}")
            count += 1

    yield generate
    if report := request.config.getoption("--stress-report"):
        row = {"test": request.node.name, "cases": count, "seconds": round(time.monotonic() - start)}
        with Path(report).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
