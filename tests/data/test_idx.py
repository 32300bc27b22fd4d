"""The sources of MNIST's kind, against a real server on this machine that serves good, bad and no answers."""

import gzip
import hashlib
import multiprocessing
import os
import socket
import struct
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vae.data import download
from vae.data.base import DataError
from vae.data.idx import FILES, IdxFiles
from vae.model.build import build

Compose = Callable[..., dict[str, Any]]

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
        self.requests: list[str] = []
        self.closing = threading.Event()

    def mirror(self, behaviour: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{behaviour}/"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.requests.append(self.path)
        behaviour, name = self.path.strip("/").split("/")
        body, sent, headers = PACKED[name], None, {}
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


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield server
    server.closing.set()
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "PAUSE", 0.01)
    monkeypatch.setattr(download, "READ", 0.3)
    monkeypatch.setattr(download, "WINDOW", 1.0)
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)


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


def write(root: Path, files: dict[str, bytes]) -> None:
    (root / "tiny").mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (root / "tiny" / name).write_bytes(content)


def left(root: Path) -> set[str]:
    """What lies in the folder, the empty lock file aside."""
    return {path.name for path in (root / "tiny").glob("*")} - {".lock"}


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


# From disk.


@pytest.mark.parametrize("files", [PLAIN, PACKED, PLAIN | PACKED], ids=["plain", "packed", "both"])
@pytest.mark.parametrize("digests", [DIGESTS, GZ_DIGESTS, {}], ids=["of the content", "of the .gz", "none"])
def test_files_on_disk_are_read_and_nothing_is_written(
    tmp_path: Path, files: dict[str, bytes], digests: dict[str, str]
) -> None:
    write(tmp_path, files)
    (tmp_path / "tiny").chmod(0o555)
    read_right(source(tmp_path, digests=digests))
    assert {path.name for path in (tmp_path / "tiny").iterdir()} == set(files)


def test_the_home_folder_may_be_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "data", PLAIN)
    read_right(source(Path("~/data")))


def test_one_file_may_be_packed_and_another_not(tmp_path: Path) -> None:
    write(tmp_path, {f"{IMAGES}.gz": PACKED[f"{IMAGES}.gz"]} | {name: PLAIN[name] for name in FILES[1:]})
    read_right(source(tmp_path))


def test_a_repacked_file_is_known_by_its_content(tmp_path: Path) -> None:
    write(tmp_path, {name: gzip.compress(gzip.decompress(content), 1) for name, content in PACKED.items()})
    read_right(source(tmp_path))


BAD = {
    "truncated": (IMAGES, PLAIN[IMAGES][:-1], "415 bytes"),
    "too long": (IMAGES, PLAIN[IMAGES] + b"!", "expected 416"),
    "empty": (IMAGES, b"", "nothing"),
    "a page": (IMAGES, b"<html>Not found</html>", "no IDX file"),
    "changed": (IMAGES, PLAIN[IMAGES][:-1] + b"!", DIGESTS[IMAGES][:16]),
    "too few": (IMAGES, idx(np.zeros((19, 4, 5), np.uint8)), "19 images, expected 20"),
    "labels": (IMAGES, PLAIN[FILES[1]], "no IDX file of images"),
    "truncated gz": (f"{IMAGES}.gz", PACKED[f"{IMAGES}.gz"][:-9], "truncated"),
    "no gz": (f"{IMAGES}.gz", PLAIN[IMAGES], "no gzip file"),
    "damaged gz": (f"{IMAGES}.gz", PACKED[f"{IMAGES}.gz"][:-8] + b"wrongCRC", "damaged"),
    "a bomb": (f"{IMAGES}.gz", BOMB, "more bytes unpacked than the expected 416"),
    "huge": (IMAGES, struct.pack(">4I", 0x0803, 20, 2**31, 2**31), "2147483648×2147483648 pixels"),
    "without pixels": (IMAGES, struct.pack(">4I", 0x0803, 20, 0, 5), "0×5 pixels"),
    "large": (IMAGES, PLAIN[IMAGES] + bytes(10**6), "more than 83,739 bytes"),
    "wrong gz": (f"{IMAGES}.gz", OTHER[f"{IMAGES}.gz"], "SHA-256"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_file_is_not_used_but_named_and_kept(tmp_path: Path, kind: str) -> None:
    file, content, expected = BAD[kind]
    write(tmp_path, {name: PLAIN[name] for name in FILES[1:]} | {file: content})
    with little_memory():
        where = str(tmp_path / "tiny" / file)
        fails(source(tmp_path, refused()), where, expected, "connection refused", "put the right")
    assert (tmp_path / "tiny" / file).read_bytes() == content
    assert left(tmp_path) == {file, *FILES[1:]}


def test_a_label_without_a_class_is_refused(tmp_path: Path) -> None:
    write(tmp_path, PLAIN | {FILES[1]: idx(np.full(20, 3, np.uint8))})
    fails(source(tmp_path, refused(), digests={}), FILES[1], "label 3, expected 0 to 2")


def test_a_good_download_replaces_a_bad_gz_and_leaves_a_bad_plain_file(
    tmp_path: Path, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path, {IMAGES: b"bad", f"{IMAGES}.gz": b"bad", FILES[1]: PLAIN[FILES[1]]})
    read_right(source(tmp_path, server.mirror("good")))
    assert (tmp_path / "tiny" / f"{IMAGES}.gz").read_bytes() == PACKED[f"{IMAGES}.gz"]
    assert (tmp_path / "tiny" / IMAGES).read_bytes() == b"bad"
    assert f"/good/{FILES[1]}.gz" not in server.requests  # the one that was good already
    assert str(tmp_path / "tiny" / IMAGES) in caplog.text


# Downloaded.


@pytest.mark.parametrize("digests", [DIGESTS, GZ_DIGESTS], ids=["of the content", "of the .gz"])
@pytest.mark.parametrize("behaviour", ["good", "labelled", "flaky", "no-length"])
def test_missing_files_are_downloaded_once(
    tmp_path: Path, server: Server, behaviour: str, digests: dict[str, str]
) -> None:
    read_right(source(tmp_path, server.mirror(behaviour), digests=digests))
    assert left(tmp_path) == set(PACKED)
    assert all((tmp_path / "tiny" / name).read_bytes() == content for name, content in PACKED.items())
    asked = len(server.requests)
    read_right(source(tmp_path, server.mirror(behaviour), digests=digests))
    assert len(server.requests) == asked


FAILURES = {
    "truncated": "truncated",
    "interrupted": "broke off",
    "wrong": "SHA-256",
    "page": "no gzip file",
    "404": "HTTP 404 Not Found",
    "500": "HTTP 500",
    "closing": "closed without an answer",
    "endless": "more than 83,739 bytes",
    "dripping": "too slow",
    "slow-headers": "too slow",
    "nonsense": "nonsense\\x1b",
    "bomb": "more bytes unpacked than the expected 416",
    "hanging": "timed out",
}


@pytest.mark.parametrize("behaviour", FAILURES)
def test_a_bad_answer_leaves_nothing_behind_and_is_explained(tmp_path: Path, server: Server, behaviour: str) -> None:
    with little_memory():
        fails(source(tmp_path, server.mirror(behaviour)), f"{IMAGES}.gz", "127.0.0.1", FAILURES[behaviour])
    assert left(tmp_path) == set()
    assert server.requests == [f"/{behaviour}/{IMAGES}.gz"] * download.ROUNDS  # and none of the other three files


@pytest.mark.parametrize("behaviour", FAILURES)
def test_the_second_mirror_serves_when_the_first_does_not(tmp_path: Path, server: Server, behaviour: str) -> None:
    read_right(source(tmp_path, server.mirror(behaviour), server.mirror("good")))
    assert left(tmp_path) == set(PACKED)
    assert [path for path in server.requests if behaviour in path] == [f"/{behaviour}/{IMAGES}.gz"]


def test_redirects_are_followed_but_not_in_circles_nor_through_endless_answers(tmp_path: Path, server: Server) -> None:
    with little_memory():
        read_right(source(tmp_path / "a", server.mirror("endless-redirect")))
        fails(source(tmp_path / "b", server.mirror("circle")), "Exceeded 30 redirects")


def test_bad_headers_are_no_matter_for_a_traceback(
    tmp_path: Path, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    read_right(source(tmp_path, server.mirror("bad-headers")))
    assert not [record for record in caplog.records if record.exc_info]


def test_a_server_without_tls_is_named(tmp_path: Path, server: Server) -> None:
    mirror = server.mirror("good").replace("http:", "https:")
    fails(source(tmp_path, mirror), "127.0.0.1: no secure connection")


def test_an_answer_may_take_long_only_while_much_arrives(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "SLOWEST", 1)  # the server sends 20 bytes a second
    monkeypatch.setattr(download, "PIECE", 1)
    monkeypatch.setattr(download, "WINDOW", 0.5)
    monkeypatch.setattr(download, "LONGEST", 1.5)
    start = time.monotonic()
    fails(source(tmp_path, server.mirror("dripping")), "too slow", "in 1.5 s")
    assert 2 * 1.5 < time.monotonic() - start < 6


BAD_MIRRORS = {
    "": "'': must begin with http:// or https://",
    "ftp://host/": "host: must begin with http:// or https://",
    "http://": "names no host",
    "http://[::1": "'http://[::1': Invalid IPv6 URL",
    "http://host:99999999/": "host: Port out of range",
    "http://a\nb.invalid/": "name resolution failed",
    f"http://{'a' * 64}.invalid/": "label",
}


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("mirror", BAD_MIRRORS)
def test_a_nonsensical_mirror_is_named_and_another_one_serves(tmp_path: Path, server: Server, mirror: str) -> None:
    fails(source(tmp_path, mirror), "no mirror can be reached", BAD_MIRRORS[mirror])
    read_right(source(tmp_path, mirror, server.mirror("good"), server.mirror("good")))


def test_without_mirrors_files_come_from_the_disk_alone(tmp_path: Path) -> None:
    fails(source(tmp_path), "no files in", "there are no mirrors to download from", "put the right files")
    write(tmp_path, PLAIN)
    read_right(source(tmp_path))


@pytest.mark.parametrize("name", ["", ".", "..", "../../x", "/etc/x", "a/b", "a\\b", "a\nb", "a\0b"])
def test_a_name_that_leads_out_of_the_root_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"^data\.name=.*: must be the name of a folder directly below") as error:
        IdxFiles(tmp_path, name=name, classes=["a"], mirrors=[], digests={})
    assert "\n" not in str(error.value)


def test_a_pipe_in_place_of_a_file_is_not_waited_for(tmp_path: Path) -> None:
    write(tmp_path, {name: PLAIN[name] for name in FILES[1:]})
    os.mkfifo(tmp_path / "tiny" / IMAGES)
    fails(source(tmp_path), f"{IMAGES} is no regular file")


def test_images_of_two_sizes_are_refused(tmp_path: Path) -> None:
    write(tmp_path, PLAIN | {FILES[2]: idx(np.zeros((10, 5, 4), np.uint8))})
    with pytest.raises(DataError, match=r"tiny: images of \(4, 5\) and \(5, 4\) pixels"):
        source(tmp_path, digests={}).read()


def test_a_full_disk_is_no_fault_of_a_mirror(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    fails(source(tmp_path, server.mirror("good")), f"{IMAGES}.gz cannot be written")
    assert server.requests == [f"/good/{IMAGES}.gz"] and left(tmp_path) == set()


def test_an_unreachable_mirror_is_left_out(tmp_path: Path, server: Server) -> None:
    read_right(source(tmp_path, refused(), server.mirror("good")))


def test_without_a_network_the_answer_comes_at_once(tmp_path: Path) -> None:
    start = time.monotonic()
    fails(
        source(tmp_path, refused(), "http://mirror.invalid/"), "connection refused", "mirror.invalid: name resolution"
    )
    assert time.monotonic() - start < download.CONNECT + 1
    assert not (tmp_path / "tiny").exists()


def test_a_silent_network_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "CONNECT", 0.2)
    released = threading.Event()

    def silence(*_: object) -> None:
        released.wait(5)
        raise TimeoutError

    monkeypatch.setattr(download.socket, "create_connection", silence)
    start = time.monotonic()
    fails(source(tmp_path, "http://one.invalid", "http://two.invalid"), "one.invalid: no connection within 0.2 s")
    assert time.monotonic() - start < 1
    released.set()


def test_a_folder_that_cannot_be_written_to_is_an_error_of_one_line(tmp_path: Path, server: Server) -> None:
    (tmp_path / "file").write_text("not a folder")
    fails(source(tmp_path / "file", server.mirror("good")), "cannot be written to")


def read_in_a_process(root: Path, mirror: str, barrier: object, results: object) -> None:
    tiny = source(root, mirror)
    barrier.wait()  # type: ignore[attr-defined]
    data = tiny.read()
    results.put(hashlib.sha256(data.train.images.numpy().tobytes()).hexdigest())  # type: ignore[attr-defined]


def test_processes_that_start_together_download_once(tmp_path: Path, server: Server) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["vae.data.idx"])
    barrier, results = context.Barrier(4), context.Queue()
    run = partial(context.Process, target=read_in_a_process)
    processes = [run(args=(tmp_path, server.mirror("slow"), barrier, results)) for _ in range(4)]
    for process in processes:
        process.start()
    digests = {results.get(timeout=30) for _ in processes}
    for process in processes:
        process.join(timeout=30)
        assert process.exitcode == 0
    assert digests == {hashlib.sha256(PLAIN[IMAGES][16:]).hexdigest()}
    assert sorted(server.requests) == sorted(f"/slow/{name}" for name in PACKED)
    assert left(tmp_path) == set(PACKED)


# As configured.


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "kmnist"])
def test_the_configuration_is_complete(name: str, compose: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VAE_DATA", raising=False)
    configured = build(compose(f"data={name}"), "data")
    assert type(configured) is IdxFiles and configured.name == name
    assert configured.root == Path("~/.cache/vae").expanduser()
    assert len(configured.classes) == 10 and all(type(label) is str for label in configured.classes)
    assert len({mirror.split("/")[2] for mirror in configured.mirrors}) >= 2
    assert {key.removesuffix(".gz") for key in configured.digests} == set(FILES)
    assert all(len(digest) == 64 and int(digest, 16) for digest in configured.digests.values())


def test_real_mnist(compose: Compose) -> None:
    root = Path(os.environ.get("VAE_DATA", ""))
    if not (root / "mnist").is_dir():
        pytest.skip("VAE_DATA does not point at a folder with mnist/")
    data = build(compose("data=mnist"), "data", mirrors=[]).read()
    assert (len(data.train), len(data.test), data.shape) == (60_000, 10_000, (1, 28, 28))
    assert data.train.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert abs(data.train.images.float().mean().item() / 255 - 0.1307) < 1e-4
