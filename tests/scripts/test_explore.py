import os

import explore
import pytest


def test_writes_a_page_into_the_runs_folder(run, capsys):
    folder = run()
    explore.main([str(folder)])
    assert capsys.readouterr().out.strip().endswith("explorer.html")
    assert '"name":"run"' in (folder / "explorer.html").read_text(encoding="utf-8")


def test_two_checkpoints_share_a_page_that_opens_in_the_browser(run, tmp_path, monkeypatch):
    opened: list[str] = []
    monkeypatch.setattr(explore.webbrowser, "open", opened.append)
    checkpoint = run("latent_dim=3") / "checkpoints" / "last.ckpt"
    out = tmp_path / "pages" / "both.html"
    explore.main([str(checkpoint.parents[1]), str(checkpoint), "--out", str(out), "--open"])
    text = out.read_text(encoding="utf-8")
    assert text.count('"name":"run"') == 2 and "epoch 2" in text and "epoch 3" in text
    assert opened == [out.as_uri()]


def test_says_in_one_line_what_is_wrong(run, tmp_path):
    with pytest.raises(SystemExit, match=r"^error: .*must be the folder of a run or a checkpoint file"):
        explore.main([str(tmp_path)])
    with pytest.raises(SystemExit, match=r"^error: .*there is no folder /nowhere"):
        explore.main([str(run()), "--data-root", "/nowhere"])


def test_help_has_examples(capsys):
    with pytest.raises(SystemExit) as stop:
        explore.main(["--help"])
    assert stop.value.code == 0 and "examples:" in capsys.readouterr().out


def test_a_place_that_cannot_be_written_is_refused_before_the_work(run, tmp_path, monkeypatch):
    folder = run()
    monkeypatch.setattr(explore, "_described", lambda *_: pytest.fail("the run was read"))
    with pytest.raises(SystemExit, match=r"^error: .*run: must be a regular file or a new name"):
        explore.main([str(folder), "--out", str(folder)])
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(SystemExit, match=r"^error: .*run: cannot be written to; name another place with --out$"):
        explore.main([str(folder)])
