import pytest
import report
from made_runs import run, write


def test_a_run_and_a_sweep_have_cards(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "alone", run())
    for name in ("0", "1"):
        write(tmp_path / "sweep" / name, run(seed=int(name)))
    report.main(["alone", "sweep"])
    written = capsys.readouterr().out.splitlines()
    assert written == ["alone/report.html", "sweep/0/report.html", "sweep/1/report.html", "sweep/report.html"]
    assert "0/report.html" in (tmp_path / "sweep" / "report.html").read_text()


def test_a_run_in_this_folder_has_one_card(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(write(tmp_path / "alone", run()))
    report.main(["."])
    assert capsys.readouterr().out.splitlines() == ["report.html"]


def test_what_holds_no_run_is_refused_in_one_line(tmp_path):
    with pytest.raises(SystemExit, match=r"^error: .*: holds no run: there is no status\.json in it or below it$"):
        report.main([str(tmp_path)])
    with pytest.raises(SystemExit, match=r"^error: nowhere: no such folder$"):
        report.main(["nowhere"])
