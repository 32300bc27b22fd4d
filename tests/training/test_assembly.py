from collections.abc import Callable
from typing import Any

from vae.model.build import build
from vae.training.assembly import _loaders


def test_training_images_alone_are_mirrored(image_run: Callable[..., dict[str, Any]]) -> None:
    for asked in (True, False):
        source = build(image_run(f"data.flip={asked}"), "data")
        loaders = _loaders(source, source.load(), seed=0)
        assert {name for name, loader in loaders.items() if loader.flip} == ({"train"} if asked else set())
