import json
import os
import stat
from pathlib import Path

import pytest

from vae.files import new_folder, relative, replacing, write_json


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
