"""Frames (height, width, 3) of bytes as files of moving pictures."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from PIL import Image

from vae.common.files import replacing

_BY_OCTREE = Image.Quantize.FASTOCTREE  # keeps rare colours apart, which a median cut of a mostly white picture mixes


def write_gif(path: Path, frames: Sequence[np.ndarray], seconds: float = 8.0) -> None:
    """Write a film that repeats."""
    # One palette for all frames, or the colours would flicker.
    palette = Image.fromarray(np.concatenate(frames[:: max(1, len(frames) // 4)])).quantize(128, _BY_OCTREE)
    images = [Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    with replacing(path) as temporary:
        images[0].save(
            temporary, save_all=True, append_images=images[1:], duration=1000 * seconds / len(frames), loop=0
        )


def write_mp4(path: Path, frames: Sequence[np.ndarray], seconds: float) -> bool:
    """Write an MP4 where Matplotlib finds ffmpeg; says whether it does."""
    from matplotlib.animation import writers  # takes a tenth of a second

    if not writers.is_available("ffmpeg"):
        return False
    height, width = (size // 2 * 2 for size in frames[0].shape[:2])  # its colours are of 2×2 pixels
    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(len(frames) / seconds)]
    with replacing(path) as temporary:
        command = [mpl.rcParams["animation.ffmpeg_path"], "-y", "-v", "error", *source, "-i", "-"]
        pixels = b"".join(frame[:height, :width].tobytes() for frame in frames)
        done = subprocess.run([*command, "-pix_fmt", "yuv420p", temporary], input=pixels, stderr=subprocess.PIPE)
        if done.returncode:
            raise RuntimeError(f"ffmpeg: {done.stderr.decode(errors='replace').strip()}")
    return True
