"""Downloads that end with the right file or with none: several mirrors, retries, short time-outs, verified content."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit

import requests
import urllib3
from filelock import FileLock, Timeout
from tqdm import tqdm

from vae.data.base import DataError
from vae.files import replacing

log = logging.getLogger(__name__)

CONNECT, READ = 4.0, 10.0  # seconds until a mirror must be connected, and between two pieces that it sends
ROUNDS, PAUSE = 2, 1.0  # how often all mirrors are tried for a file, and the seconds in between
LOCK = 600.0  # seconds to wait for another process that downloads the same files


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold `folder` for one process; the others wait, and then find what the first one downloaded."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock", timeout=LOCK)  # stays there empty: removing a lock file is a race
        lock.acquire()
    except Timeout:
        raise DataError(f"another process has been downloading to {folder} for over {LOCK:g} s") from None
    except OSError as error:
        raise DataError(f"{folder} cannot be written to ({error.strerror or error})") from None
    try:
        yield
    finally:
        lock.release()


def reachable(mirrors: Sequence[str]) -> list[str]:
    """The mirrors that accept a connection; without any, a `DataError` that says why, within `CONNECT` seconds.

    They are tried all at once, in threads that nobody waits for longer: resolving a name has no time-out of its own,
    and a silent host with eight addresses would take eight.
    """
    failures = dict.fromkeys(mirrors, f"no connection within {CONNECT:g} s")

    def connect(mirror: str) -> None:
        proxy = requests.utils.select_proxy(mirror, requests.utils.get_environ_proxies(mirror))
        address = urlsplit(proxy or mirror)
        try:
            port = address.port or (443 if address.scheme == "https" else 80)
            socket.create_connection((address.hostname or "", port), CONNECT / 2).close()
            del failures[mirror]
        except (OSError, ValueError) as error:
            failures[mirror] = _reason(error)

    threads = [Thread(target=connect, args=(mirror,), daemon=True) for mirror in mirrors]
    deadline = time.monotonic() + CONNECT
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    failed = dict(failures)  # a late thread may still change the other one
    if len(failed) == len(mirrors):
        raise DataError(f"no mirror can be reached ({_summary(failed)})")
    return [mirror for mirror in mirrors if mirror not in failed]


def download(names: Sequence[str], folder: Path, mirrors: Sequence[str], check: Callable[[str, bytes], object]) -> None:
    """Put the named files into `folder`, each from the first mirror whose copy passes `check(name, content)`."""
    for name in names:
        mirrors = _download(name, folder, mirrors, check)


def _download(name: str, folder: Path, mirrors: Sequence[str], check: Callable[[str, bytes], object]) -> list[str]:
    """Get one file and return the mirrors with the one that served it first, to be asked first for the next file."""
    failures: dict[str, str] = {}
    for attempt in range(ROUNDS):
        if attempt:
            time.sleep(PAUSE)
        for mirror in mirrors:
            url = mirror.rstrip("/") + "/" + name
            try:
                with replacing(folder / name) as temporary:
                    _fetch(url, temporary)
                    check(name, temporary.read_bytes())
            except (requests.RequestException, DataError, OSError) as error:
                failures[mirror] = _reason(error)
                log.info("%s: %s", url, failures[mirror])
            else:
                log.info("downloaded %s", url)
                return [mirror, *(other for other in mirrors if other != mirror)]
    raise DataError(f"{name} could not be downloaded ({_summary(failures)})")


def _fetch(url: str, path: Path) -> None:
    """Stream `url` to `path` byte for byte.

    Pooch and `iter_content` would unpack what a server labels `Content-Encoding: gzip`, as some do with every .gz file:
    the result no longer is the file whose checksum was published.
    """
    headers = {"Accept-Encoding": "identity"}
    with requests.get(url, stream=True, timeout=(CONNECT, READ), headers=headers) as response:
        response.raise_for_status()
        total = int(response.headers.get("Content-Length", 0)) or None
        bar = tqdm(
            total=total, desc=url.rpartition("/")[2], unit="B", unit_scale=True, disable=None
        )  # None: only in a terminal
        with bar, path.open("wb") as file:
            try:
                for chunk in response.raw.stream(1 << 16, decode_content=False):
                    bar.update(file.write(chunk))
            except urllib3.exceptions.HTTPError as error:  # which requests itself translates in `iter_content` only
                raise requests.ConnectionError(error) from error


def _summary(failures: Mapping[str, str]) -> str:
    return "; ".join(f"{urlsplit(mirror).hostname}: {why}" for mirror, why in failures.items())


def _reason(error: Exception) -> str:
    """What went wrong, in a few words on one line: the messages of `requests` nest those of three libraries."""
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"HTTP {error.response.status_code} {error.response.reason}".rstrip()
    text = str(error)
    if isinstance(error, requests.RequestException):
        if "timed out" in text.lower():
            return "timed out"
        if "IncompleteRead" in text:
            return "the connection broke off"
        if "RemoteDisconnected" in text or "reset" in text.lower():
            return "the connection was closed without an answer"
    if isinstance(error, socket.gaierror):
        return "name resolution failed"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return " ".join(text.split())[:200] or type(error).__name__
