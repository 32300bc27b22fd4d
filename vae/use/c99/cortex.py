"""A model in C for Cortex-M processors: its flash and RAM, and its instructions on emulated boards."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import NamedTuple

import numpy as np

from vae.common.tables import Table

TOOLS = ("arm-none-eabi-gcc", "arm-none-eabi-ld", "arm-none-eabi-size", "qemu-system-arm")
SECONDS = 300  # that an emulation may take
DRAWING = ("vae_decode", "vae_sample")  # all that a program calls which draws images from the prior
COUNTED = {"to encode": "encoding", "to decode": "decoding", "to score": "scoring"}


class Board(NamedTuple):
    """A processor, and QEMU's name of a board with it."""

    name: str
    cpu: str
    fpu: str
    machine: str
    memory: str  # where it has 16 MB


BOARDS = (
    Board("Cortex-M4", "cortex-m4", "fpv4-sp-d16", "mps2-an386", "0x21000000"),
    Board("Cortex-M7", "cortex-m7", "fpv5-sp-d16", "mps2-an500", "0x60000000"),
)


class Memory(NamedTuple):
    """Bytes, without those of C's own library."""

    flash: int  # constants and code
    ram: int


class Emulated(NamedTuple):
    """What a board makes of an image, and the instructions of each call."""

    encoding: int
    decoding: int
    scoring: int
    score: float
    mean: np.ndarray  # (latents,)
    log_var: np.ndarray  # (latents,)
    decoded: np.ndarray  # (pixels,), bytes


def missing_tools() -> list[str]:
    """The programs that are not installed here."""
    return [name for name in TOOLS if shutil.which(name) is None]


def measure(code: Path, images: np.ndarray, latents: int) -> Table:
    """Flash and RAM of a model on each board, and the instructions of an image, the mean over some images of bytes."""
    rows = []
    for board in BOARDS:
        whole, drawing = memory(code, board), memory(code, board, DRAWING)
        seen = emulate(code, board, images, latents)
        counts = {name: round(np.mean([getattr(each, key) for each in seen])) for name, key in COUNTED.items()}
        sizes = {"flash": whole.flash, "flash to draw": drawing.flash, "RAM": whole.ram}
        rows.append({"": board.name, **sizes, **counts})
    notes = ["bytes, without those of the C library; instructions of an image, as QEMU counts them"]
    return Table([], list(rows[0]), rows, notes)


def memory(code: Path, board: Board, called: Sequence[str] = ()) -> Memory:
    """Of all functions of a model, or of those that are called and what these need."""
    with tempfile.TemporaryDirectory() as folder:
        made = _compiled(code, board, Path(folder))
        if called:
            roots = [f"--undefined={name}" for name in called]
            made, whole = made.with_name("part.o"), made
            _run("arm-none-eabi-ld", "-r", "--gc-sections", f"--entry={called[0]}", *roots, whole, "-o", made)
        text, data, bss, *_ = map(int, _run("arm-none-eabi-size", made).splitlines()[1].split()[:3])
    return Memory(text + data, data + bss)


def emulate(code: Path, board: Board, images: np.ndarray, latents: int) -> list[Emulated]:
    """What the board makes of images (n, channels, height, width) of bytes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "images.bin").write_bytes(images.tobytes())
        for each in ("board.c", "board.ld"):
            text = files("vae.use.c99").joinpath(each).read_text(encoding="utf-8")
            filled = Template(text).substitute(header=code.with_suffix(".h").name, memory=board.memory)
            (folder / each).write_text(filled, encoding="utf-8")
        parts = [_compiled(each, board, folder, f"-I{code.parent}") for each in (code, folder / "board.c")]
        _run(*_compiler(board), "--specs=rdimon.specs", "-T", "board.ld", *parts, "-lm", "-o", "board.elf", cwd=folder)
        silent = ("-display", "none", "-monitor", "none", "-serial", "none")
        counting = ("-icount", "shift=0", "-semihosting-config", "enable=on,target=native")
        told = _run("qemu-system-arm", "-M", board.machine, *silent, *counting, "-kernel", "board.elf", cwd=folder)
    return [_emulated(line.split(), latents) for line in told.splitlines()]


def _emulated(told: Sequence[str], latents: int) -> Emulated:
    """A line that board.c prints."""
    numbers = np.array(told[3 : 4 + 2 * latents], np.float32)
    encoding, decoding, scoring = map(int, told[:3])
    decoded = np.array(told[4 + 2 * latents :], np.uint8)
    return Emulated(encoding, decoding, scoring, float(numbers[0]), numbers[1::2], numbers[2::2], decoded)


def _compiler(board: Board) -> list[str]:
    processor = (f"-mcpu={board.cpu}", "-mthumb", "-mfloat-abi=hard", f"-mfpu={board.fpu}")
    return ["arm-none-eabi-gcc", "-std=c99", "-O2", *processor]


def _compiled(code: Path, board: Board, folder: Path, *options: str) -> Path:
    """The object file of a C file, with each function and constant in a section of its own."""
    made = folder / f"{code.stem}.o"
    _run(*_compiler(board), "-ffunction-sections", "-fdata-sections", *options, "-c", code.absolute(), "-o", made)
    return made


def _run(*command: str | Path, cwd: Path | None = None) -> str:
    """What a program prints; refuses in one line where it fails."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=cwd, stdin=subprocess.DEVNULL, timeout=SECONDS
        )
    except subprocess.TimeoutExpired:
        raise ValueError(f"{command[0]}: must end within {SECONDS} s") from None
    if done.returncode:
        raise ValueError(f"{command[0]}: failed ({' '.join((done.stderr or done.stdout).split())[:300]})")
    return done.stdout
