"""Files that are either whole or absent: written under a temporary name beside the final one, then renamed.

A rename is on the disk when the block has ended, so that a power cut does not undo it.
"""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import shlex
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows, which lets nobody remove a file that is open
    fcntl = None  # type: ignore[assignment]

PART = ".part"  # in the names of temporary files, before the suffix, by which some savers choose a format
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary path in the same folder that takes `path`'s place when the block ends well, else vanishes.

    A symbolic link stays, and the file that it leads to is replaced. Devices, pipes and folders are refused.
    """
    path = _resolved(path)
    if path.exists() and not path.is_file():
        raise ValueError(f"{path}: must be a regular file or a new name, but is a {_kind(path)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    _clear_remains(path)
    with _naming_a_full_disk(path):
        with _in_the_name_of(path):
            handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=PART + path.suffix)
        temporary = Path(name)
        try:
            _hold(handle)
            yield temporary
            temporary.chmod(0o666 & ~_umask())  # mkstemp's 0600 would lock other users out of shared data
            _to_disk(temporary)
            temporary.replace(path)
        finally:
            os.close(handle)
            temporary.unlink(missing_ok=True)
    _to_disk(path.parent)


@contextmanager
def new_folder(path: str | Path) -> Iterator[Path]:
    """A temporary folder beside `path` that becomes it when the block ends well, else vanishes.

    Nothing is replaced: files from before would stay between the new ones.
    """
    path = _resolved(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ValueError(f"{path}: exists already; name a new or an empty folder")
    path.parent.mkdir(parents=True, exist_ok=True)
    _clear_remains(path)
    with _naming_a_full_disk(path):
        with _in_the_name_of(path):
            temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=PART))
        handle = os.open(temporary, os.O_RDONLY) if fcntl is not None else None
        try:
            if handle is not None:
                _hold(handle)
            yield temporary
            temporary.chmod(0o777 & ~_umask())
            for each in (*temporary.rglob("*"), temporary):
                _to_disk(each)
            temporary.replace(path)
        finally:
            if handle is not None:
                os.close(handle)
            shutil.rmtree(temporary, ignore_errors=True)
    _to_disk(path.parent)


def write_json(path: str | Path, content: Any) -> None:
    """Write `content` as readable JSON, atomically."""
    with replacing(path) as temporary:
        temporary.write_text(as_json(content), encoding="utf-8")


def as_json(content: Any) -> str:
    """Readable JSON, as it stands in files."""
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file; None where there is no file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: cannot be read as JSON: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: must hold a JSON object")
    return content


def write_csv(path: str | Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as a table, atomically; the keys of the first one are the columns."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


class Bounded(io.BufferedReader):
    """An open file of which nobody reads more than there is: Python takes the memory for as much as is asked for.

    For decoders, which ask for what a damaged or hostile file says: 289 MB of a PNG of 102 bytes.
    """

    def __init__(self, path: str | Path):
        super().__init__(io.FileIO(path))

    def read(self, size: int | None = -1) -> bytes:
        if size is not None and size > io.DEFAULT_BUFFER_SIZE:
            size = min(size, max(0, os.fstat(self.fileno()).st_size - self.tell()))
        return super().read(size)


def relative(path: Path) -> Path:
    """The path as one would type it from here."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def in_shell(path: Path) -> str:
    """The path as one would type it into a shell, quoted."""
    return shlex.quote(str(relative(path)))


def _resolved(path: str | Path) -> Path:
    """The target of a symbolic link; any other path as it is."""
    path = Path(path)
    if not path.is_symlink():
        return path
    try:
        return path.resolve()
    except (RuntimeError, OSError):
        raise ValueError(f"{path}: is a link that leads back to itself") from None


def _kind(path: Path) -> str:
    mode = path.stat().st_mode
    kinds = {stat.S_ISDIR: "folder", stat.S_ISFIFO: "pipe", stat.S_ISSOCK: "socket"}
    return next((name for is_kind, name in kinds.items() if is_kind(mode)), "device")


def _hold(handle: int) -> None:
    """Mark a temporary file or folder as being written; the system forgets the mark when its process ends."""
    if fcntl is not None:
        with suppress(OSError):  # not every network file system has locks; there the remains of killed writers stay
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _clear_remains(path: Path) -> None:
    """Remove temporary files that killed writers of the same path left behind."""
    for remains in path.parent.glob(f".{_escaped(path.name)}.????????{PART}*"):
        with suppress(OSError):
            if fcntl is not None:
                handle = os.open(remains, os.O_RDONLY)
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails while somebody writes it
                finally:
                    os.close(handle)
            if remains.is_dir():
                shutil.rmtree(remains, ignore_errors=True)
            else:
                remains.unlink()


def _escaped(name: str) -> str:
    """Escape a name for `glob`: brackets, stars and question marks are patterns there."""
    return "".join(f"[{letter}]" if letter in "[]*?" else letter for letter in name)


def _to_disk(path: Path) -> None:
    """Write a file, or the names in a folder, to the disk now."""
    if path.is_dir() and fcntl is None:
        return  # Windows opens no folders
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system without fsync
            raise
    finally:
        os.close(handle)


@contextmanager
def _in_the_name_of(path: Path) -> Iterator[None]:
    """Name the final path in errors about the temporary one."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


@contextmanager
def _naming_a_full_disk(path: Path) -> Iterator[None]:
    """Say which disk is full, and what could not be written to it."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        disk = path.absolute().parent
        while not disk.is_mount():
            disk = disk.parent
        free = shutil.disk_usage(disk).free / 1e6
        raise OSError(
            f"{path} cannot be written: {os.strerror(error.errno)} (disk {disk}, {free:,.0f} MB free)"
        ) from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
