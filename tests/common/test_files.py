import errno
import json
import os
import resource
import signal
import stat
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
import torch

from vae.common.files import Bounded, new_folder, relative, replacing, write_json


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    target = tmp_path / "folder" / "file.txt"
    with replacing(target) as temporary:
        temporary.write_text("new")
        assert not target.exists()
    assert target.read_text() == "new"
    assert list(target.parent.iterdir()) == [target]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "file.txt"
    target.write_text("old")
    with pytest.raises(KeyboardInterrupt), replacing(target) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "above" / "new"
    with new_folder(target) as temporary:
        (temporary / "a").write_text("a")
        assert not target.exists()
    assert [path.name for path in target.iterdir()] == ["a"] and list(target.parent.iterdir()) == [target]
    before = os.umask(0o022)
    try:
        with pytest.raises(KeyboardInterrupt), new_folder(tmp_path / "other") as temporary:
            (temporary / "a").write_text("a")
            raise KeyboardInterrupt
        with new_folder(tmp_path / "readable"):
            pass
    finally:
        os.umask(before)
    assert not (tmp_path / "other").exists() and stat.S_IMODE((tmp_path / "readable").stat().st_mode) == 0o755
    with new_folder(tmp_path / "readable") as temporary:  # empty
        (temporary / "b").write_text("b")
    assert (tmp_path / "readable" / "b").exists()


@pytest.mark.parametrize("name", ["file", "folder"])
def test_no_folder_takes_the_place_of_what_is_there(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_text("old")
    (tmp_path / "file").write_text("old")
    with (
        pytest.raises(ValueError, match=f"{name}: exists already; name a new or an empty folder"),
        new_folder(tmp_path / name),
    ):
        raise AssertionError
    assert (tmp_path / "folder" / "file").read_text() == (tmp_path / "file").read_text() == "old"


def test_others_may_read_it_as_the_umask_says(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_json(tmp_path / "a.json", {"σ": 1})
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.json").stat().st_mode) == 0o640
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"σ": 1}


def test_relative_only_below_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert relative(tmp_path / "a" / "b") == Path("a/b")
    assert relative(Path("/elsewhere")) == Path("/elsewhere")


@pytest.mark.parametrize("what", ["pipe", "device", "folder"])
def test_only_regular_files_are_replaced(tmp_path: Path, what: str) -> None:
    target = tmp_path / what
    if what == "pipe":
        os.mkfifo(target)
    elif what == "folder":
        target.mkdir()
    else:
        try:
            os.mknod(target, stat.S_IFCHR | 0o600, os.makedev(1, 3))
        except OSError:
            pytest.skip("only root makes devices")
    before = target.stat()
    for name in (target, tmp_path / "link"):
        if name != target:
            name.symlink_to(target)
        match = rf"{what}: must be a regular file or a new name, but is a {what}$"
        with pytest.raises(ValueError, match=match), replacing(name):
            pass
    assert target.stat() == before and sorted(path.name for path in tmp_path.iterdir()) == sorted([what, "link"])


def test_links_stay_and_lead_to_what_was_written(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there" / "file.txt")  # dangling as yet
    for text in ("first", "second"):
        with replacing(tmp_path / "link") as temporary:
            temporary.write_text(text)
        assert (tmp_path / "link").is_symlink() and (tmp_path / "there" / "file.txt").read_text() == text
    (tmp_path / "folder").symlink_to(tmp_path / "there" / "new")
    with new_folder(tmp_path / "folder") as temporary:
        (temporary / "a").write_text("a")
    assert (tmp_path / "there" / "new" / "a").read_text() == "a"
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    with pytest.raises(ValueError, match="circle: is a link that leads back to itself"), replacing(tmp_path / "circle"):
        pass


@pytest.mark.skipif(sys.platform == "win32", reason="nobody removes an open file there")
def test_what_a_killed_writer_left_is_cleared_by_the_next_one_but_not_what_another_one_writes(tmp_path: Path) -> None:
    target = tmp_path / "odd [name]*.txt"
    script = (
        "import os, signal, sys\nfrom vae.common.files import new_folder, replacing\n"
        "with new_folder(sys.argv[1] + '.d') as folder, replacing(sys.argv[1]) as temporary:\n"
        "    temporary.write_text('half')\n    (folder / 'a').write_text('a')\n    os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", script, str(target)], cwd=Path(__file__).parents[2])
    assert killed.returncode == -signal.SIGKILL and len(list(tmp_path.iterdir())) == 2
    (tmp_path / f".{target.name}.notes.txt").write_text("somebody's own")
    with replacing(target) as first:
        first.write_text("first")
        with replacing(target) as second:
            second.write_text("second")
        assert first.exists()
    with new_folder(f"{target}.d"):
        pass
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {target.name, f"{target.name}.d", f".{target.name}.notes.txt"} and target.read_text() == "first"


def test_a_rename_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(
        os, "fsync", lambda handle: (steps.append(str(Path(f"/proc/self/fd/{handle}").readlink())), fsync(handle))
    )
    monkeypatch.setattr(os, "replace", lambda *names: (steps.append("rename"), replace(*names)))
    with replacing(tmp_path / "file.txt") as temporary:
        temporary.write_text("new")
    assert steps == [str(temporary), "rename", str(tmp_path)]
    steps.clear()
    with new_folder(tmp_path / "folder") as temporary:
        (temporary / "a").write_text("a")
    assert steps == [str(temporary / "a"), str(temporary), "rename", str(tmp_path)]


def test_a_full_disk_is_named_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file.txt").write_text("old")
    with (
        pytest.raises(
            OSError, match=r"file\.txt cannot be written: No space left on device \(disk /.*, [\d,]+ MB free\)$"
        ),
        replacing(tmp_path / "file.txt"),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert (tmp_path / "file.txt").read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def test_a_checkpoint_that_does_not_fit_is_named_in_one_line(tmp_path: Path) -> None:
    from vae.model.checkpoints import AtomicCheckpointIO

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))  # a file as large as that, and not a byte more
    try:
        with pytest.raises(OSError, match=r"last\.ckpt cannot be written: File too large \(disk /"):
            AtomicCheckpointIO().save_checkpoint({"weights": torch.zeros(10_000)}, tmp_path / "last.ckpt")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert not list(tmp_path.iterdir())


def test_more_than_a_file_has_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(content := bytes(range(256)) * 1000)
    tracemalloc.start()
    with Bounded(path) as file:
        assert file.read(2**30) == content and file.read(2**30) == b""
        assert file.seek(-20_000, os.SEEK_END) and file.read(2**30) == content[-20_000:]
        assert file.seek(10) and (file.read(5), file.read(100_000)) == (content[10:15], content[15:100_015])
        assert file.read() == content[100_015:] and file.seek(0) == 0 and file.read(None) == content
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()
