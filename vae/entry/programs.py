"""What the programs in scripts/ share: arguments, endings in one line, images with a progress bar."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

from vae.common.files import replacing
from vae.common.terminal import fitted

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from vae.data.stream import Chunk
    from vae.use.trained import Trained

SHOWN = 12  # images in a picture
MOST = 10**9  # of anything that is counted
STDOUT = (Path("-"), Path("/dev/stdout"))  # the names by which a table goes to standard output; neither is opened
CLOSED_PIPE = 141  # the exit status of what a shell's pipe no longer reads
TERMINAL = 5  # seconds in which a training ends that the terminal has sent Ctrl+C, too
TRAIN = Path(__file__).parents[2] / "train.py"


def described(name: str, what: str | None, examples: str) -> argparse.ArgumentParser:
    """A parser without arguments, whose help shows the examples as they stand."""
    return argparse.ArgumentParser(
        prog=name, description=what, epilog=examples, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def parser(name: str, what: str | None, examples: str, images: bool = True) -> argparse.ArgumentParser:
    """A parser that asks for the run, for `images` where the program reads some, and for what depends on the model."""
    made = described(name, what, examples)
    made.add_argument("run", type=Path, help="the folder of a run (its reported weights) or a checkpoint file")
    if images:
        made.add_argument(
            "images",
            type=Path,
            help="a folder of image files, one such file, or an .npz with an array called images; files are scaled to "
            "the model's size",
        )
    every = (
        "of all images (the name of each one's folder, or the .npz's labels)" if images else "to sample (all, in turn)"
    )
    made.add_argument("--class", dest="label", metavar="NAME", help=f"{every}, where the model is conditional")
    made.add_argument("--trust", action="store_true", help="build classes that are not of this program")
    return made


def positive(text: str) -> int:
    """A type of arguments."""
    if not text.isdecimal() or not 1 <= int(text) <= MOST:
        raise argparse.ArgumentTypeError(f"{text}: must be a positive integer, at most {MOST:,}")
    return int(text)


@contextmanager
def ending_in_one_line() -> Iterator[None]:
    """End the program where it goes wrong, with one line that says why, or with 130 at Ctrl+C.

    It ends without a word where nobody reads its output any more, as after `| head`.
    """
    try:
        yield
        print(end="", flush=True)  # else the interpreter would find out, after this block, and complain
    except BrokenPipeError:
        end_silently()
    except (ValueError, OSError, RuntimeError, MemoryError) as error:
        sys.exit(fitted(f"error: {' '.join(str(error).splitlines()) or type(error).__name__}", sys.stderr))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


def end_silently() -> NoReturn:
    """End the program, whose output nobody reads any more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left goes there at the end
    sys.exit(CLOSED_PIPE)


def run(work: Callable[..., None], options: argparse.Namespace) -> None:
    """Do the work, or end with one line that says why not."""
    with ending_in_one_line():
        work(**vars(options))


def run_train_py(arguments: Sequence[str]) -> int:
    """Run train.py, which goes on with what its folder already holds; its exit status.

    Ctrl+C and SIGTERM reach it, too, and it saves before it ends.
    """
    process = subprocess.Popen([sys.executable, str(TRAIN), *arguments], cwd=TRAIN.parent)
    before = signal.signal(signal.SIGTERM, lambda signum, frame: process.send_signal(signum))
    try:
        return process.wait()
    except KeyboardInterrupt:
        with suppress(subprocess.TimeoutExpired):
            process.wait(TERMINAL)
        process.send_signal(signal.SIGINT)
        process.wait()
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def entries(file: Path, names: Sequence[str], unknown: str) -> dict[str, Any]:
    """The entries of a YAML by these names, or all; `unknown` is what to say of a name that it does not have."""
    from omegaconf import OmegaConf  # takes half of the time to --help

    found = OmegaConf.to_container(OmegaConf.load(file))
    assert isinstance(found, dict)
    for name in names:
        if name not in found:
            raise ValueError(f"{name}: {unknown}; there are {', '.join(map(str, found))}")
    return {str(name): found[name] for name in names or found}


def bar(what: str, total: int) -> Any:
    """A progress bar on stderr, where that is a terminal."""
    from tqdm import tqdm

    return tqdm(desc=what, total=total, unit=" images", disable=None, leave=False)


@contextmanager
def table_file(out: Path) -> Iterator[TextIO]:
    """Where a table is written to: standard output, or a file that is whole or absent."""
    if out in STDOUT:
        if sys.stdout is None:  # as after >&-
            raise ValueError(f"{out}: standard output is closed")
        yield sys.stdout
    else:
        # Names of files that are no UTF-8 are written as they are.
        with (
            replacing(out) as temporary,
            temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file,
        ):
            yield file


def inside(run: Path) -> Path:
    """The folder of a run, into which a program writes by default; refused before any work where it cannot."""
    from vae.model.checkpoints import file_of, folder_of

    folder = folder_of(file_of(run))
    if not os.access(folder, os.W_OK):
        raise ValueError(f"{folder}: cannot be written to; name another place with --out")
    return folder


def save_picture(path: Path, figure: Figure, dpi: float | None = None) -> None:
    """Write a figure as PNG, atomically."""
    from PIL import Image

    from vae.figures.style import png_options, rasterise

    with replacing(path) as temporary:
        Image.fromarray(rasterise(figure, dpi)).save(temporary, "png", **png_options(figure))


def refuse_unknown_class(model: Trained, label: str | None) -> None:
    """Refuse the option --class before any work."""
    if label is not None and not model.conditional:
        raise ValueError(f"--class {label}: must be left out, because the model is not conditional")
    if label is not None and label not in model.classes:
        raise ValueError(f"--class {label}: must be one of {', '.join(model.classes)}")


def chunks(model: Trained, images: Path, label: str | None, what: str) -> Iterator[Chunk]:
    """The images of a file or folder as the model's run saw its own, with labels if and only if it wants them."""
    import numpy as np

    from vae.data.stream import ImageStream

    refuse_unknown_class(model, label)
    stream = ImageStream(images, model.shape)
    with bar(what, len(stream)) as progress:
        for chunk in stream:
            labels = chunk.labels if model.conditional else None
            if label is not None:
                labels = np.full(len(chunk.names), label)
            if labels is None and model.conditional:
                raise ValueError(f"--class: must be one of {', '.join(model.classes)}, because {images} names none")
            pixels = chunk.images
            if model.config["data"].get("binarize") == "threshold":
                pixels = pixels >= (128 if pixels.dtype == np.uint8 else 128 / 255)
            yield chunk._replace(images=pixels, labels=labels)
            progress.update(len(chunk.names))
    if stream.note:
        print(f"warning: {stream.note}", file=sys.stderr)
