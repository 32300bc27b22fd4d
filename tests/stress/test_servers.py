"""Downloads from servers that misbehave: the right arrays or one line, and neither memory nor files are left behind."""

import gzip
import hashlib
import random
import socket
import struct
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread

import numpy as np
import pytest

from vae.data import download
from vae.data.base import DataError
from vae.data.idx import FILES, IdxFiles

pytestmark = pytest.mark.slow

COUNTS = {"train": 20, "t10k": 10}
MEMORY = 2**26  # bytes, the server's own included
PATIENCE = 120.0  # seconds for a case, on a busy machine: four slow answers are waited for 9 s each


def idx(name: str) -> bytes:
    count = COUNTS[name.split("-")[0]]
    array = np.arange(count, dtype=np.uint8) % 3
    if "images" in name:
        array = np.random.default_rng(0).integers(0, 256, (count, 4, 5), np.uint8)
    return struct.pack(f">I{array.ndim}I", 0x0800 + array.ndim, *array.shape) + array.tobytes()


PLAIN = {name: idx(name) for name in FILES}
DIGESTS = {name: hashlib.sha256(content).hexdigest() for name, content in PLAIN.items()}
PACKED = {f"{name}.gz": gzip.compress(content, mtime=0) for name, content in PLAIN.items()}
BOMB = gzip.compress(bytes(2**26))


def answer(body: bytes, status: str = "200 OK", **headers: object) -> bytes:
    lines = [f"HTTP/1.1 {status}", *(f"{key.replace('_', '-')}: {value}" for key, value in headers.items())]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def whole(body: bytes) -> bytes:
    return answer(body, Content_Length=len(body), Connection="close")


class Answer:
    """How one connection is answered."""

    def __init__(self, rng: random.Random, name: str, url: str, asked: int, stop: Event):
        self.rng, self.name, self.url, self.asked, self.stop = rng, name, url, asked, stop
        self.body = PACKED[name]

    # What is sent at once.

    def good(self) -> bytes:
        return whole(self.body)

    def good_after_failures(self) -> bytes:
        return whole(self.body) if self.asked >= self.rng.randrange(2) else answer(b"", "503 Busy", Content_Length=0)

    def chunked(self) -> bytes:
        half = len(self.body) // 2
        chunks = (b"%x\r\n%s\r\n" % (len(part), part) for part in (self.body[:half], self.body[half:], b""))
        return answer(b"".join(chunks), Transfer_Encoding="chunked")

    def wrong_chunks(self) -> bytes:
        size = self.rng.choice([b"zz", b"-5", b"f" * 20, b"a" * 100_000, b""])
        return answer(size + b"\r\n" + self.body, Transfer_Encoding="chunked")

    def wrong_length(self) -> bytes:
        length = self.rng.choice(["abc", "-1", "", "9" * 5000, 10**15, 0, 1, len(self.body) - 1, "5, 6", "१२"])
        with suppress(UnicodeEncodeError):
            return answer(self.body, Content_Length=length)
        return answer(self.body)

    def truncated(self) -> bytes:
        return whole(self.body)[: self.rng.randrange(len(whole(self.body)))]

    def damaged(self) -> bytes:
        content = bytearray(whole(self.body))
        for _ in range(self.rng.randint(1, 5)):
            content[self.rng.randrange(len(content))] = self.rng.randrange(256)
        return bytes(content)

    def another_file(self) -> bytes:
        return whole(PACKED[self.rng.choice(list(PACKED))])

    def not_packed(self) -> bytes:
        return whole(PLAIN[self.name.removesuffix(".gz")])

    def page(self) -> bytes:
        return whole(b"<html>Please log in to use this network.</html>" * self.rng.randint(1, 9000))

    def error_page(self) -> bytes:
        status = self.rng.choice(["404 Not Found", "500 \x1b[2J\xff", "403", "429 " + "x" * 5000, "304 Same", "204 No"])
        return answer(b"<html></html>", status, Content_Length=13)

    def labelled(self) -> bytes:
        return answer(
            self.body, Content_Length=len(self.body), Content_Encoding=self.rng.choice(["gzip", "br", "x, y"])
        )

    def bomb(self) -> bytes:
        return whole(BOMB)

    def garbage(self) -> bytes:
        return self.rng.randbytes(self.rng.choice([1, 100, 100_000]))

    def many_headers(self) -> bytes:
        return answer(self.body, **{f"X{i}": "x" * self.rng.choice([1, 70_000]) for i in range(300)})

    def closes(self) -> bytes:
        return b""

    def redirects(self) -> bytes:
        to = self.rng.choice(
            [self.url, "/elsewhere", "", "ftp://host/x", "http://[::1", "file:///etc/hostname", "//", "\xff"]
        )
        return answer(b"", "302 Found", Location=to, Content_Length=0)

    # What never ends.

    def endless(self) -> Iterator[bytes]:
        yield answer(
            b"", self.rng.choice(["200 OK", "302 Found", "500 No"]), Location=self.rng.choice([self.url, "/x"])
        )
        while True:
            yield bytes(1 << 16)

    def drips(self) -> Iterator[bytes]:
        start = self.rng.choice([b"", b"HTTP/1.1 200 OK\r\nX: ", answer(b""), answer(b"", Transfer_Encoding="chunked")])
        yield start
        while not self.stop.wait(0.05):
            yield b"1"

    def silent(self) -> Iterator[bytes]:
        yield self.rng.choice([b"", answer(self.body[:50], Content_Length=len(self.body))])
        self.stop.wait(5)


ANSWERS = [name for name in vars(Answer) if not name.startswith("_")]
SERVES = {"good", "good_after_failures", "chunked"}  # within the number of times that a mirror is asked


class Server:
    """Answers `/<behaviour>/<file>`."""

    def __init__(self, seed: str):
        self.seed = seed
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.stop = Event()
        self.asked: dict[str, int] = {}
        Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection: socket.socket) -> None:
        with suppress(OSError, ValueError, LookupError), connection:
            connection.settimeout(5)
            path = connection.makefile("rb").readline().split()[1].decode()
            _, behaviour, name = path.split("/")
            self.asked[path] = asked = self.asked.get(path, 0) + 1
            rng = random.Random(f"{self.seed} {path} {asked if behaviour != 'good_after_failures' else 0}")
            sent: bytes | Iterator[bytes] = getattr(Answer(rng, name, path, asked - 1, self.stop), behaviour)()
            for piece in [sent] if isinstance(sent, bytes) else sent:
                if self.stop.is_set():
                    return
                connection.sendall(piece)
            connection.shutdown(socket.SHUT_WR)
            connection.recv(1 << 16)  # else the rest of the request would reset the connection

    def mirror(self, behaviour: str, scheme: str = "http") -> str:
        return f"{scheme}://127.0.0.1:{self.listener.getsockname()[1]}/{behaviour}/"

    def close(self) -> None:
        self.stop.set()
        self.listener.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"PAUSE": 0.01, "READ": 1.5, "WINDOW": 3.0, "LONGEST": 9.0}.items():
        monkeypatch.setattr(download, name, value)
    for variable in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(variable, raising=False)
        monkeypatch.delenv(variable.upper(), raising=False)


def read(root: Path, mirrors: list[str]) -> None:
    """Read the files and compare them."""
    source = IdxFiles(root, name="tiny", classes="abc", mirrors=mirrors, digests=DIGESTS)
    source.counts = COUNTS
    data = source.read()
    for part, key in ((data.train, "train"), (data.test, "t10k")):
        assert part.images.numpy().tobytes() == PLAIN[f"{key}-images-idx3-ubyte"][16:]
        assert part.labels.numpy().astype(np.uint8).tobytes() == PLAIN[f"{key}-labels-idx1-ubyte"][8:]


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_misbehaving_servers(tmp_path: Path, rounds: Callable[..., Iterator[random.Random]]) -> None:
    for number, rng in enumerate(rounds(share=0.1, least=2 * len(ANSWERS))):
        behaviours = [ANSWERS[number % len(ANSWERS)], rng.choice(["good", "good", rng.choice(ANSWERS)])]
        server = Server(str(rng.random()))
        mirrors = [server.mirror(behaviours[0], rng.choice(["http"] * 9 + ["https"])), server.mirror(behaviours[1])]
        what = f"case {number}: {mirrors}"
        root = tmp_path / str(number)
        start = time.monotonic()
        tracemalloc.start()
        try:
            read(root, mirrors[: rng.choice([1, 2, 2, 2])] if behaviours[1] not in SERVES else mirrors)
        except DataError as error:
            assert not SERVES & {behaviours[1]}, f"{what}: {error}"
            assert "\n" not in str(error) and str(error).isprintable() and len(str(error)) < 2000, f"{what}: {error}"
        except Exception as error:
            raise AssertionError(f"{what}: {error!r}") from error
        finally:
            server.close()
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert peak < MEMORY, f"{what}: {peak:,} bytes"
        assert time.monotonic() - start < PATIENCE, what
        for file in (root / "tiny").glob("*"):
            # A byte of gzip's header that says nothing of the content may be damaged.
            assert file.name == ".lock" or gzip.decompress(file.read_bytes()) == PLAIN.get(file.stem), f"{what}: {file}"
