"""Arrays as text for the page: bytes by their place, deflated, in base85. `numbers.js` reads them."""

from __future__ import annotations

import base64
import zlib
from typing import Any

import numpy as np
from torch import Tensor

Packed = dict[str, Any]

# Python's base85 without the letters that could end a script or look like a call in it.
DIGITS = str.maketrans("<&{}(=", ".,[]':")


def floats(values: Tensor) -> Packed:
    """float32 as it is."""
    return _deflated(values.detach().cpu().float().numpy().view("<u4"), 4)


def small(values: Tensor) -> Packed:
    """uint8 as it is."""
    return _deflated(values.cpu().numpy(), 1)


def steps(values: Tensor, bits: float) -> Packed:
    """Multiples of ‖values‖ · 2^−bits, in as few bytes as the largest needs."""
    step = step_of(values, bits)
    whole = np.rint(values.detach().cpu().double().numpy() / step).astype(np.int64)
    signless = np.where(whole < 0, -2 * whole - 1, 2 * whole)  # so that small ones have zeros in their high bytes
    width = max(1, (int(signless.max(initial=0)).bit_length() + 7) // 8)
    return _deflated(signless.astype("<u4"), width) | {"step": step}


def rounded(values: Tensor, bits: float) -> Tensor:
    """What `steps` leaves of the values."""
    step = step_of(values, bits)
    return ((values.double() / step).round() * step).to(values)


def step_of(values: Tensor, bits: float) -> float:
    """‖values‖ · 2^−bits: the larger of two matrices has the longer steps, because there are more numbers to send."""
    return values.detach().double().norm().item() * 2.0**-bits or 1.0


def _deflated(values: np.ndarray, width: int) -> Packed:
    """The lowest bytes of all values, then the next ones: deflate shortens only what looks alike."""
    planes = np.ascontiguousarray(values).reshape(-1, 1).view(np.uint8)[:, :width].T
    text = base64.b85encode(zlib.compress(planes.tobytes(), 9)).decode().translate(DIGITS)
    return {"bytes": width, "deflated": text}
