"""Mirrors of small data files that answer well, badly or not at all."""

import gzip
import hashlib
import socket
import struct
import threading
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch

from vae.data.base import DataError
from vae.data.idx import FILES, IdxFiles

COUNTS = {"train": 20, "t10k": 10}


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">I{array.ndim}I", 0x0800 + array.ndim, *array.shape) + array.tobytes()


def contents(seed: int = 0) -> dict[str, bytes]:
    """The four files of a tiny data set of 4 × 5 pixels with three classes."""
    random = np.random.default_rng(seed)
    return {
        name: idx(
            random.integers(0, 256, (n, 4, 5), np.uint8) if "images" in name else np.arange(n, dtype=np.uint8) % 3
        )
        for name in FILES
        for n in [COUNTS[name.split("-")[0]]]
    }


PLAIN = contents()
PACKED = {f"{name}.gz": gzip.compress(content, mtime=0) for name, content in PLAIN.items()}
DIGESTS = {name: hashlib.sha256(content).hexdigest() for name, content in PLAIN.items()}
GZ_DIGESTS = {name: hashlib.sha256(content).hexdigest() for name, content in PACKED.items()}
OTHER = {f"{name}.gz": gzip.compress(content) for name, content in contents(seed=1).items()}
IMAGES = FILES[0]
BOMB = gzip.compress(PLAIN[IMAGES] + bytes(2**26))


class Server(ThreadingHTTPServer):
    """Serves `/<behaviour>/<file>` and remembers every request."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = PACKED
        self.requests: list[str] = []
        self.closing = threading.Event()

    def mirror(self, behaviour: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{behaviour}/"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.requests.append(self.path)
        behaviour, name = self.path.strip("/").split("/")
        body, sent, headers = self.server.files[name], None, {}
        if behaviour == "flaky":
            behaviour = "503" if self.server.requests.count(self.path) == 1 else "good"
        match behaviour:
            case "slow":  # long enough for all processes to ask
                time.sleep(0.2)
            case "truncated":
                body = body[:-9]
            case "interrupted":
                sent = body[: len(body) // 2]
            case "wrong":
                body = OTHER[name]
            case "page":
                body = b"<html>Please log in to use this network.</html>"
            case "labelled":  # as some servers label every .gz file
                headers = {"Content-Encoding": "gzip"}
            case "closing":
                return
            case "endless":
                self.endless(b"HTTP/1.0 200 OK\r\n\r\n", bytes(1 << 16))
                return
            case "dripping":
                self.endless(b"HTTP/1.0 200 OK\r\n\r\n", b"x", 0.05)
                return
            case "slow-headers":
                self.endless(b"HTTP/1.0 200 OK\r\nX: ", b"x", 0.05)
                return
            case "endless-redirect":
                self.endless(f"HTTP/1.0 302 Found\r\nLocation: /good/{name}\r\n\r\n".encode(), bytes(1 << 16))
                return
            case "circle":
                self.wfile.write(f"HTTP/1.0 302 Found\r\nLocation: {self.path}\r\n\r\n".encode())
                return
            case "nonsense":
                self.wfile.write(b"nonsense\x1b\r\n\r\n")
                return
            case "bomb":
                body = BOMB
            case "bad-headers":
                headers = {"no header": "\r\n nonsense\r\nnonsense"}
            case "no-length":
                headers = {"Content-Length": "abc"}
            case "hanging":
                self.server.closing.wait(5)
                return
            case "404" | "500" | "503":
                self.send_error(int(behaviour))
                return
        self.send_response(200)
        for key, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body if sent is None else sent)

    def endless(self, start: bytes, piece: bytes, pause: float = 0) -> None:
        with suppress(OSError):
            self.wfile.write(start)
            while not self.server.closing.wait(pause):
                self.wfile.write(piece)

    def log_message(self, *_: object) -> None:
        pass


def source(root: Path, *mirrors: str, digests: dict[str, str] = DIGESTS, **others: object) -> IdxFiles:
    tiny = IdxFiles(
        root,
        8,
        name="tiny",
        classes=["a", "b", "c"],
        mirrors=mirrors,
        digests=digests,
        **others,  # type: ignore[arg-type]
    )
    tiny.counts = COUNTS
    return tiny


def refused() -> str:
    """A mirror that nobody runs."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{unused.getsockname()[1]}/"


def write(root: Path, files: dict[str, bytes], data: str = "tiny") -> None:
    for name, content in files.items():
        path = root / data / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def left(root: Path, data: str = "tiny") -> set[str]:
    """What lies in the folder, the empty lock file aside."""
    return {path.name for path in (root / data).glob("*")} - {".lock"}


def fails(tiny: IdxFiles, *words: str) -> None:
    """Reading ends with a message of one line that has all the words."""
    with pytest.raises(DataError) as error:
        tiny.read()
    message = str(error.value)
    assert "\n" not in message
    for word in (*words, "tiny", str(tiny.folder), "data=strokes"):
        assert word in message, message


@contextmanager
def little_memory(most: int = 2**24) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < most
    finally:
        tracemalloc.stop()


def read_right(tiny: IdxFiles) -> None:
    data = tiny.read()
    assert data.name == "tiny" and data.classes == ("a", "b", "c") and data.shape == (1, 4, 5)
    assert (data.train.images.dtype, data.train.labels.dtype) == (torch.uint8, torch.int64)
    for part, key in ((data.train, "train"), (data.test, "t10k")):
        assert part.images.numpy().tobytes() == PLAIN[f"{key}-images-idx3-ubyte"][16:]
        assert part.labels.tolist() == [i % 3 for i in range(COUNTS[key])]
