"""Downloads of small data files from a real server on this machine, which serves good, bad and no answers."""

import hashlib
import multiprocessing
import threading
import time
from functools import partial
from pathlib import Path

import pytest
from mirrors import (
    DIGESTS,
    GZ_DIGESTS,
    IMAGES,
    PACKED,
    PLAIN,
    Server,
    fails,
    left,
    little_memory,
    read_right,
    refused,
    source,
    write,
)

from vae.data import download
from vae.data.idx import FILES


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
