"""Images as a user has them: arrays, tensors and pictures of the usual kinds and layouts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from PIL import Image
from torch import Tensor

from vae.common.types import Shape
from vae.data.images import to_pixels

Images = ArrayLike | Tensor | Image.Image | Sequence[Tensor] | Sequence[Image.Image]


def as_batch(images: Images, shape: Shape, name: str = "images") -> np.ndarray:
    """One image or several as an array (n, channels, height, width) of their own numbers; see `to_unit`.

    Channels may come last where there are three, and be left out where there is one.
    """
    array = _array(images, shape[0], name)
    channels, height, width = shape
    forms: list[tuple[int, ...]] = [shape]
    if channels == 1:
        forms.append((height, width))
    if channels == 3:
        forms.append((height, width, channels))
    fitting = [form for form in forms if array.shape[-len(form) :] == form and array.ndim <= len(form) + 1]
    if not fitting:
        allowed = ", ".join(f"{_written(form)}, {_written(('n', *form))}" for form in forms)
        raise ValueError(f"{name} of shape {_written(array.shape)}: must be {allowed}")
    if array.dtype not in (np.uint8, np.bool_) and not np.issubdtype(array.dtype, np.floating):
        raise ValueError(f"{name} of {array.dtype}: must be uint8 from 0 to 255, or floats from 0 to 1")
    if array.size == 0:
        raise ValueError(f"{name}: there are none")
    if fitting[0] != shape and channels == 3:
        array = np.moveaxis(array, -1, -3)
    return array.reshape(-1, *shape)


def to_unit(images: np.ndarray, name: str = "images") -> Tensor:
    """The same numbers as floats in [0, 1]: bytes are divided by 255, floats must lie there."""
    x = torch.from_numpy(images.astype(np.float32, order="C"))
    if images.dtype == np.uint8:
        return x / 255
    low, high = (value.item() for value in x.aminmax())
    if np.isnan(low):
        raise ValueError(f"{name}: contain NaN; floats must lie between 0 and 1")
    if low < 0 or high > 1:
        raise ValueError(f"{name} from {low:g} to {high:g}: floats must lie between 0 and 1, or be uint8 up to 255")
    return x


def _array(images: Any, channels: int, name: str) -> np.ndarray:
    if isinstance(images, Image.Image):
        return np.moveaxis(to_pixels(images, channels), -1, 0)
    if isinstance(images, Tensor):
        images = images.detach().cpu()
        return (images.float() if images.dtype == torch.bfloat16 else images).numpy()  # numpy has no bfloat16
    if isinstance(images, list | tuple) and any(isinstance(each, np.ndarray | Tensor | Image.Image) for each in images):
        arrays = [_array(each, channels, name) for each in images]
        shapes = sorted({array.shape for array in arrays})
        if len(shapes) > 1:
            raise ValueError(f"{name} of different shapes: {_written(shapes[0])} and {_written(shapes[1])}")
        return np.stack(arrays)
    try:
        return np.asarray(images)
    except ValueError as error:
        raise ValueError(f"{name}: must be numbers in rows of one length ({error})") from error


def _written(shape: Sequence[object]) -> str:
    return f"({', '.join(map(str, shape))})"
