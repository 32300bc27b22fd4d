"""Configurations of command lines, and how they are refused."""

import functools
from collections.abc import Callable

import pytest
from omegaconf import DictConfig

from vae.settings.compose import composed
from vae.settings.config import check
from vae.settings.errors import explain

CORRELATED = "prior=correlated prior.covariance="
IMAGES = "data=images data.root=photos "
composed_once = functools.cache(composed)


def refusal(cfg: Callable[[], DictConfig]) -> str:
    """The line that a configuration is refused with, be it while it is composed or when it is checked."""
    with pytest.raises(Exception) as caught:
        check(cfg())
    line = explain(caught.value)
    assert "\n" not in line
    assert not any(word in line for word in ("Error:", "object_type", "full_key", "Rule("))
    return line
