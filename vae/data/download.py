"""Downloads that end with the right file or with none: several mirrors, retries, limits, verified content."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Event, Thread
from urllib.parse import urlsplit

import requests
import urllib3
from filelock import Timeout
from tqdm import tqdm

from vae.common.files import replacing
from vae.data.base import DataError, one_line
from vae.data.cache import WAIT, held

log = logging.getLogger(__name__)
logging.getLogger("urllib3").setLevel(logging.ERROR)  # it warns of bad headers with tracebacks

CONNECT, READ = 4.0, 10.0  # seconds until a mirror must be connected, and between two pieces that it sends
# An answer must bring at least `SLOWEST` bytes a second, averaged over each `WINDOW` of seconds: MNIST's largest file,
# of 10 MB, then takes 8 minutes at most. After `LONGEST` seconds it ends in any case, as others wait no longer for it.
SLOWEST, WINDOW, LONGEST = 20_000, 20.0, WAIT
PIECE = 2**14  # bytes
MESSAGE = 200  # characters of what a library or a server says
ROUNDS, PAUSE = 2, 1.0  # how often all mirrors are tried for a file, and the seconds in between


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold `folder` for one process; the others wait, and then find what the first one downloaded."""
    with ExitStack() as stack:
        try:
            stack.enter_context(held(folder / ".lock"))
        except Timeout:
            raise DataError(f"another process has been downloading to {folder} for over {WAIT:g} s") from None
        except (OSError, NotImplementedError) as error:
            raise DataError(f"{folder} cannot be written to ({getattr(error, 'strerror', None) or error})") from None
        yield


def reachable(mirrors: Sequence[str]) -> list[str]:
    """The mirrors that accept a connection; without any, a `DataError` that says why, within `CONNECT` seconds.

    They are tried all at once, in threads that nobody waits for longer: resolving a name has no time-out of its own,
    and a silent host with eight addresses would take eight.
    """
    if not mirrors:
        raise DataError("there are no mirrors to download from")
    failures = dict.fromkeys(mirrors, f"no connection within {CONNECT:g} s")

    def connect(mirror: str) -> None:
        try:
            _connect(mirror)
            failures.pop(mirror)
        except Exception as error:  # not only of the network: proxies and addresses may be nonsense
            failures[mirror] = _reason(error)

    threads = [Thread(target=connect, args=(mirror,), daemon=True) for mirror in failures]
    deadline = time.monotonic() + CONNECT
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    failed = dict(failures)  # a late thread may still change the other one
    found = [mirror for mirror in dict.fromkeys(mirrors) if mirror not in failed]
    if not found:
        raise DataError(f"no mirror can be reached ({_summary(failed)})")
    return found


def _connect(mirror: str) -> None:
    """Open a connection to a mirror, or to the proxy that leads there, and close it."""
    if urlsplit(mirror).scheme not in ("http", "https"):
        raise ValueError("must begin with http:// or https://")
    proxy = requests.utils.select_proxy(mirror, requests.utils.get_environ_proxies(mirror))
    address = urlsplit(proxy or mirror)
    if not address.hostname:
        raise ValueError("names no host")
    port = address.port or (443 if address.scheme == "https" else 80)
    socket.create_connection((address.hostname, port), CONNECT / 2).close()


def download(
    sizes: Mapping[str, int], folder: Path, mirrors: Sequence[str], check: Callable[[str, bytes], object]
) -> None:
    """Put the named files into `folder`, each from the first mirror with a copy that passes `check(name, content)`.

    `sizes` says how many bytes each may have at most.
    """
    for name, most in sizes.items():
        mirror, content = _download(name, most, mirrors, check)
        try:
            with replacing(folder / name) as temporary:
                temporary.write_bytes(content)
        except (OSError, ValueError) as error:
            raise DataError(f"{folder / name} cannot be written ({_reason(error)})") from None
        # Ask this mirror first for the next file.
        mirrors = [mirror, *(other for other in mirrors if other != mirror)]


def _download(name: str, most: int, mirrors: Sequence[str], check: Callable[[str, bytes], object]) -> tuple[str, bytes]:
    """The mirror that has the file, and its content."""
    failures: dict[str, str] = {}
    for attempt in range(ROUNDS):
        if attempt:
            time.sleep(PAUSE)
        for mirror in mirrors:
            url = mirror.rstrip("/") + "/" + name
            try:
                content = _fetch(url, most)
                check(name, content)
            except Exception as error:  # a strange answer fails in many ways, and all have the same cure
                failures[mirror] = _reason(error)
                log.info("%s: %s", one_line(url), failures[mirror])
            else:
                log.info("downloaded %s", url)
                return mirror, content
    raise DataError(f"{name} could not be downloaded ({_summary(failures)})")


def _fetch(url: str, most: int) -> bytes:
    """The content of `url`, byte for byte, within limits of size and time.

    A thread reads, and nobody waits for it longer: each byte that a server sends sets the time-outs of `requests` back.
    """
    arrived: SimpleQueue[bytes | Exception] = SimpleQueue()
    given_up = Event()
    bar = tqdm(desc=url.rpartition("/")[2], unit="B", unit_scale=True, disable=None)  # None: only in a terminal

    def read() -> None:
        try:
            for piece in _pieces(url, most, bar):
                arrived.put(piece)
                if given_up.is_set():
                    return
            arrived.put(b"")
        except Exception as error:
            arrived.put(error)

    Thread(target=read, daemon=True).start()
    content = bytearray()
    start = since = time.monotonic()
    before = 0  # bytes, at the time `since`
    try:
        with bar:
            while True:
                due = min(since + WINDOW, start + LONGEST)
                try:
                    piece = arrived.get(timeout=max(0.0, due - time.monotonic()))
                except Empty:
                    seconds = time.monotonic() - start
                    raise DataError(f"is too slow ({len(content):,} bytes in {seconds:.3g} s)") from None
                if isinstance(piece, Exception):
                    raise piece
                if not piece:
                    return bytes(content)
                content += piece
                bar.update(len(piece))
                if len(content) - before >= SLOWEST * WINDOW:
                    before, since = len(content), time.monotonic()
    finally:
        given_up.set()


def _pieces(url: str, most: int, bar: tqdm) -> Iterator[bytes]:
    """An answer as it comes; `bar` learns how long it will be.

    Pooch and `iter_content` would unpack what a server labels `Content-Encoding: gzip`, as some do with every .gz file:
    the result is then no longer the file with the published checksum.
    """
    headers = {"Accept-Encoding": "identity"}
    hooks = {"response": _without_the_body_of_a_redirect}
    with requests.get(url, stream=True, timeout=(CONNECT, READ), headers=headers, hooks=hooks) as response:
        response.raise_for_status()
        bar.total = response.raw.length_remaining
        size = 0
        try:
            while piece := response.raw.read(PIECE, decode_content=False):
                size += len(piece)
                if size > most:
                    raise DataError(f"has more than {most:,} bytes")
                yield piece
        except urllib3.exceptions.HTTPError as error:  # which requests itself translates in `iter_content` only
            raise requests.ConnectionError(error) from error


def _without_the_body_of_a_redirect(response: requests.Response, **_: object) -> None:
    """Close it, because `requests` would read it to its end before it goes on, and an endless one fills the memory."""
    if response.is_redirect:
        response.raw.close()


def _host(mirror: str) -> str:
    try:
        return urlsplit(mirror).hostname or repr(mirror)
    except ValueError:
        return repr(mirror)


def _summary(failures: Mapping[str, str]) -> str:
    return "; ".join(f"{_host(mirror)}: {why}" for mirror, why in failures.items())


def _reason(error: Exception) -> str:
    """The error in a few words on one line: the messages of `requests` nest those of three libraries."""
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"HTTP {error.response.status_code} {error.response.reason}".rstrip()[:MESSAGE]
    text = str(error)
    if isinstance(error, requests.RequestException):
        if "timed out" in text.lower():
            return "timed out"
        if "IncompleteRead" in text:
            return "the connection broke off"
        if "RemoteDisconnected" in text or "reset" in text.lower():
            return "the connection was closed without an answer"
        if isinstance(error, requests.exceptions.SSLError):
            verified = "CERTIFICATE_VERIFY_FAILED" not in text
            return "no secure connection" if verified else "its certificate cannot be verified"
    if isinstance(error, socket.gaierror):
        return "name resolution failed"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return " ".join(text.split())[:MESSAGE] or type(error).__name__
