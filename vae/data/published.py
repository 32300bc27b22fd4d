"""Data sets in the files that were published: read from disk, or downloaded once and verified."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vae.data.base import DataError, DataSource
from vae.data.download import download, exclusive, reachable

log = logging.getLogger(__name__)


class Found(NamedTuple):
    """What lies on the disk."""

    arrays: dict[str, np.ndarray]  # the content of good files, by their names
    bad: dict[Path, str]  # what is wrong with the others, unless their content is elsewhere


@dataclass(eq=False, kw_only=True)
class PublishedFiles(DataSource):
    """Base of data sets in files of known names, in `<root>/<name>/` or on the first mirror that serves them.

    A subclass says which files there are and how one is read. None is used unless it is as it must be and, where one is
    published, has the right SHA-256: `digests` has them by file name.
    """

    otherwise = ""  # advice where the files cannot be had

    name: str
    classes: Sequence[str]
    mirrors: Sequence[str]
    digests: Mapping[str, str]

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.name in ("", ".", "..") or not self.name.isprintable() or {"/", "\\"} & set(self.name):
            raise ValueError(f"data.name={self.name!r}: must be the name of a folder directly below data.root")
        self.folder = self.root / self.name

    # Of a subclass.

    @property
    def files(self) -> Sequence[str]:
        """The names of all files, not packed."""
        raise NotImplementedError

    def places(self) -> Sequence[Path]:
        """Where files may be, packed or not; the first good one of each is taken."""
        raise NotImplementedError

    def inside(self, file: str) -> Sequence[str]:
        """The names of the files that one holds: of one that is not packed, its own."""
        raise NotImplementedError

    def packed(self, missing: Sequence[str]) -> Sequence[str]:
        """The names on the mirrors of what holds these files."""
        raise NotImplementedError

    def most(self, file: str) -> int:
        """How many bytes a file can have, packed or not."""
        raise NotImplementedError

    def decode(self, file: str, content: bytes) -> dict[str, np.ndarray]:
        """The arrays in the named file's content by `inside`, or a `DataError` that says what is wrong with it."""
        raise NotImplementedError

    # Of all.

    def arrays(self) -> dict[str, np.ndarray]:
        """The content of all files by their names, downloaded if it is not on the disk."""
        found = self._look()
        if not self._missing(found):
            return found.arrays
        try:
            mirrors = reachable(self.mirrors)  # before the lock, so that processes without a network do not queue
            with exclusive(self.folder):
                found = self._look()  # another process may have downloaded them meanwhile
                if missing := self._missing(found):
                    sizes = {file: self.most(file) for file in self.packed(missing)}
                    download(sizes, self.folder, mirrors, self.decode)
                    found = self._look()
                return found.arrays
        except DataError as error:
            raise DataError(
                f"{self.name}: {'; '.join(self._facts(found))}; {error}; put the right files, packed or not, into "
                f"{self.folder} or set VAE_DATA or data.root to where {self.name}/ is{self.otherwise}"
            ) from None

    def refuse_other_digest(self, file: str, content: bytes) -> None:
        """Refuse content that is not what was published under this name, if that is known."""
        expected = self.digests.get(file)
        if expected is None:
            return
        digest = hashlib.sha256(content).hexdigest()
        if digest != expected:
            raise DataError(f"has the SHA-256 {digest[:16]}…, expected {expected[:16]}…")

    def _look(self) -> Found:
        arrays: dict[str, np.ndarray] = {}
        bad: dict[Path, str] = {}
        for path in self.places():
            if arrays.keys() >= {*self.inside(path.name)}:
                continue
            try:
                arrays = self.decode(path.name, self._content(path)) | arrays
            except FileNotFoundError:
                continue
            except (DataError, OSError) as error:
                bad[path] = getattr(error, "strerror", None) or str(error)
        for path in [path for path in bad if arrays.keys() >= {*self.inside(path.name)}]:
            log.warning("%s %s; another file is used instead. Delete or replace the bad file.", path, bad.pop(path))
        return Found(arrays, bad)

    def _missing(self, found: Found) -> list[str]:
        return [file for file in self.files if file not in found.arrays]

    def _facts(self, found: Found) -> list[str]:
        """What is wrong on the disk."""
        missing = self._missing(found)
        nowhere = [file for file in missing if not any(file in self.inside(path.name) for path in found.bad)]
        facts = [f"{path} {why}" for path, why in found.bad.items()]
        if nowhere:
            facts.append(
                f"{'no files' if len(nowhere) == len(self.files) else 'no ' + ', '.join(nowhere)} in {self.folder}"
            )
        return facts

    def _content(self, path: Path) -> bytes:
        if path.exists() and not path.is_file():
            raise DataError("is no regular file")
        most = self.most(path.name)
        with path.open("rb") as file:
            content = file.read(most + 1)
        if len(content) > most:
            raise DataError(f"has more than {most:,} bytes")
        return content
