"""Whatever `--out` names: one line and nothing changed, or the right files and nothing else changed."""

import csv
import errno
import importlib
import os
import stat
import tempfile
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

import vae

pytestmark = pytest.mark.slow


def is_table(path: Path) -> bool:
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    return len(rows) > 1 and len({len(row) for row in rows}) == 1


def is_picture(path: Path) -> bool:
    with Image.open(path) as image:
        return image.convert("RGB").width > 10


def are_images(path: Path) -> bool:
    with np.load(path) as arrays:
        return arrays["images"].shape == (3, 10, 12)


class Program(NamedTuple):
    """What writes, and how to see that it did."""

    name: str
    arguments: str  # RUN and PHOTOS stand for what is read
    suffix: str
    is_right: Callable[[Path], bool]
    writes: str  # a file, a new folder, or files into a folder
    option: str = "--out"


PROGRAMS = (
    Program("encode", "RUN PHOTOS", ".csv", is_table, "file"),
    Program("compare", "RUN", ".csv", is_table, "file", "--csv"),
    Program("compare", "RUN", ".md", lambda path: "| validation" in path.read_text(), "file", "--markdown"),
    Program("sample", "RUN --n 3", ".npz", are_images, "file"),
    Program("reconstruct", "RUN PHOTOS", ".png", is_picture, "file"),
    Program("explore", "RUN", ".html", lambda path: path.read_text().rstrip().endswith("</html>"), "file"),
    Program("sample", "RUN --n 3", "", lambda path: is_picture(path / "00002.png"), "new"),
    Program("reconstruct", "RUN PHOTOS", "", lambda path: is_picture(path / "a" / "0.png"), "new"),
    Program("score", "RUN PHOTOS", "", lambda path: is_table(path / "scores.csv"), "new"),
    Program("draw", "RUN losses", "", lambda path: is_picture(path / "curves" / "losses.png"), "into"),
)
NAMES = ("plain", "two words", "two\nlines", "größe-数", "{0} $HOME %s", "-dash", "#'\"\\", ".hidden", "[a]*?")
GOOD = {  # targets that each kind of program writes to; all others it refuses
    "file": ("new", "file", "missing parents"),
    "new": ("new", "empty folder", "missing parents"),
    "into": ("new", "empty folder", "full folder", "missing parents"),
}
TARGETS = (
    "new",
    "file",
    "empty folder",
    "full folder",
    "pipe",
    "device",
    "missing parents",
    "below a file",
    "long name",
)


def make(target: str, path: Path) -> Path:
    """Lay something where a program is to write; the path to name."""
    match target:
        case "file":
            path.write_bytes(b"what was there")
        case "empty folder":
            path.mkdir()
        case "full folder":
            path.mkdir()
            (path / "kept").write_bytes(b"what was there")
        case "pipe":
            os.mkfifo(path)
        case "device":
            os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, 3))
        case "missing parents":
            return path.parent / "not" / "there" / path.name
        case "below a file":
            path.with_name("a file").write_bytes(b"what was there")
            return path.with_name("a file") / path.name
        case "long name":
            return path.with_name("x" * 300 + path.suffix)
    return path


def linked(path: Path, loop: bool) -> Path:
    """A link to a path, or one of two that lead to each other."""
    link, other = path.with_name("link" + path.suffix), path.with_name("back")
    link.symlink_to(other if loop else path)
    if loop:
        other.symlink_to(link)
    return link


def everything(folder: Path) -> dict[str, tuple[object, ...]]:
    """All that is in a folder, by its name."""
    found: dict[str, tuple[object, ...]] = {}
    for path in folder.rglob("*"):
        about = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(about.st_mode) else b""
        link = str(path.readlink()) if path.is_symlink() else ""
        found[str(path.relative_to(folder))] = (stat.S_IFMT(about.st_mode), about.st_rdev, link, content)
    return found


@pytest.fixture(scope="module")
def trained(image_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    small = ["data.channels=1", "backbone.hidden=[16,8]", "epochs=1", "figures.only=[]", "evaluate.metrics=[]"]
    vae.train("data=images", f"data.root={image_folder}", *small, folder=folder)
    return folder


def test_odd_places_are_refused_or_written(rounds, trained, image_folder, tmp_path, monkeypatch, capsys):
    targets = TARGETS if os.geteuid() == 0 else tuple(set(TARGETS) - {"device"})  # which only root makes
    for number, random in enumerate(rounds(share=0.1, least=60)):
        program, target = random.choice(PROGRAMS), random.choice(targets)
        way = random.choice(("as it is", "as it is", "through a link", "through a circle", "on a read-only disk"))
        folder = tmp_path / str(number)
        folder.mkdir()
        out = make(target, folder / (random.choice(NAMES) + program.suffix))
        if way.startswith("through"):
            if len(out.name) > 255 or "parent" in target or "below" in target:
                way = "as it is"
            else:
                out = linked(out, loop="circle" in way)
        good = target in GOOD[program.writes] and way in ("as it is", "through a link")
        if (program.writes, target, way) == ("into", "new", "through a link"):
            good = False  # nor does mkdir make the folder that a link leads to
        before = everything(folder)
        inputs = {"RUN": str(trained), "PHOTOS": str(image_folder)}
        arguments = [inputs.get(word, word) for word in program.arguments.split()] + [f"{program.option}={out}"]
        case = f"case {number}: {program.name} {arguments}, {target} {way}"

        module = importlib.import_module(program.name)
        code: object = None
        with monkeypatch.context() as patched, chdir(folder):
            if way == "on a read-only disk":
                for name in ("mkstemp", "mkdtemp"):
                    patched.setattr(tempfile, name, read_only)
            try:
                module.main(arguments)
            except SystemExit as stop:
                code = stop.code
            except BaseException as error:
                raise AssertionError(f"{case}: {type(error).__name__}: {error}") from error
        said = capsys.readouterr()
        after = everything(folder)

        assert "Traceback" not in said.err, f"{case}: {said.err}"
        if good:
            assert code is None, f"{case}: {code}"
            assert program.is_right(out), f"{case}: the output is not right"
        else:
            assert isinstance(code, str) and code.startswith("error: ") and "\n" not in code, f"{case}: {code!r}"
        written = {str(path.relative_to(folder)) for path in (out, out.resolve() if good else out)}
        kept = {
            name: about
            for name, about in before.items()
            if not (good and name in written and about[0] == stat.S_IFREG)  # which was to be replaced
        }
        assert kept.items() <= after.items(), f"{case}: something else was changed"
        if not good:
            added = {name for name in after.keys() - before.keys() if (folder / name).is_file()}
            assert not added, f"{case}: {added} were left behind"
        assert not any(".part" in name for name in after), f"{case}: a temporary file was left behind"


def read_only(*_: object, **__: object) -> None:
    raise OSError(errno.EROFS, os.strerror(errno.EROFS))
