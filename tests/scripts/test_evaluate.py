import errno
import json
import os
import signal

import evaluate
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from vae.common.types import TERMS
from vae.model import checkpoints, restored
from vae.runs import measured
from vae.study import measures

SMALL = ["--samples", "5", "--images", "6"]


def written(folder):
    return json.loads((folder / "evaluation.json").read_text())


def test_what_is_measured_is_printed_written_and_in_tensorboard(run, capsys):
    folder = run()
    (folder / "metrics.json").write_text("{}")
    evaluate.main([str(folder), "likelihood", "reconstruction", *SMALL])
    found = written(folder)
    assert (found.pop("step"), found.pop("epoch")) == (20, 2)  # of the best checkpoint
    assert {"test/nll", "test/nll_error", "test/ess", "test/mse", "test/psnr", "test/ssim"} <= found.keys()
    printed = capsys.readouterr().out
    table = measured.text(measured.rows({name.removeprefix("test/"): value for name, value in found.items()}))
    assert "\n".join(table) in printed and "quick look" not in printed  # the two are the same work for any images
    assert len(table) - 4 == len(found) - 1  # the error stands beside its number
    events = EventAccumulator(str(folder))
    events.Reload()
    assert {name: events.Scalars(name)[-1].value for name in found} == pytest.approx(found, rel=1e-5)
    assert events.Scalars("test/nll")[-1].step == 20


def test_the_card_of_a_run_shows_it(run):
    folder = run()
    (folder / "status.json").write_text(json.dumps({"state": "completed", "config": {}, "choices": {}}))
    (folder / "metrics.json").write_text('{"data": "images"}')
    (folder / "report.html").touch()
    evaluate.main([str(folder), "reconstruction"])
    assert "<td>psnr</td>" in (folder / "report.html").read_text()


def test_what_was_measured_before_is_kept(run):
    folder = run()
    evaluate.main([str(folder), "reconstruction"])
    before = written(folder)
    evaluate.main([str(folder / "checkpoints" / "best.ckpt"), "likelihood", *SMALL])
    after = written(folder)
    assert before.items() < after.items() and "test/nll" in after
    assert not list(folder.glob("events.*"))  # a folder without metrics is no run's
    evaluate.main([str(folder / "checkpoints" / "last.ckpt"), "reconstruction"])  # other weights
    assert "test/nll" not in written(folder) and written(folder)["step"] == 30


def test_an_earlier_evaluation_that_cannot_be_read_is_named(run):
    folder = run()
    (folder / "evaluation.json").write_text("{")
    with pytest.raises(SystemExit, match=r"^error: .*evaluation.json: cannot be read as JSON: "):
        evaluate.main([str(folder), "reconstruction"])


def test_what_is_measured_is_written_although_the_rest_is_stopped(run, monkeypatch):
    folder = run()
    monkeypatch.setitem(measures.MEASURES, "samples", lambda subject: signal.raise_signal(signal.SIGINT))
    with pytest.raises(SystemExit) as stop:
        evaluate.main([str(folder), "reconstruction", "samples"])
    assert stop.value.code == 130 and "test/mse" in written(folder)


def test_each_run_of_a_sweep_is_measured(run):
    folder = run()
    for name, state in (("run", "completed"), ("failed", "failed")):
        path = folder.parent / name
        path.mkdir(exist_ok=True)
        status = {"state": state, "config": {}, "choices": {}}
        (path / "status.json").write_text(json.dumps(status))
    (folder / "metrics.json").write_text(
        json.dumps({f"{part}/{term}": 1.0 for part in ("val", "test") for term in TERMS} | {"data": "images"})
    )
    evaluate.main([str(folder.parent), "reconstruction"])
    assert written(folder) and not (folder.parent / "failed" / "evaluation.json").exists()


def test_what_cannot_be_measured_is_left_out_unless_asked_for(run, capsys):
    folder = run()
    with pytest.raises(SystemExit, match=r"^error: metric=disentanglement: cannot be measured in .*: the data has"):
        evaluate.main([str(folder), "disentanglement"])
    assert not (folder / "evaluation.json").exists() and "──" not in capsys.readouterr().out  # no empty table
    with pytest.raises(SystemExit, match="metric=disentanglement"):
        evaluate.main([str(folder), "disentanglement", "reconstruction"])
    assert "test/mse" in written(folder)  # nothing is lost


def test_a_sweep_without_completed_runs_is_refused(tmp_path):
    (tmp_path / "status.json").write_text(json.dumps({"state": "failed", "config": {}, "choices": {}}))
    with pytest.raises(SystemExit, match="no run in it is completed"):
        evaluate.main([str(tmp_path)])


def test_scores_of_anomalies_are_drawn(run, monkeypatch):
    folder = run()
    (folder / "metrics.json").write_text("{}")
    _, data = restored.data_of(checkpoints.read(folder / "checkpoints" / "best.ckpt")["vae"])
    monkeypatch.setattr(evaluate, "_other_data", lambda name: data)
    evaluate.main([str(folder), "anomaly", "--against", "itself", *SMALL])
    png = (folder / "figures" / "curves" / "anomaly_scores.png").read_bytes()
    events = EventAccumulator(str(folder))
    events.Reload()
    (drawn,) = events.Images("curves/anomaly_scores")
    assert drawn.encoded_image_string == png and drawn.step == 20 and written(folder)["test/auroc_latent"] == 0.5


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["likelyhood"], r"^error: metric=likelyhood: must be one of likelihood, gap, "),
        (
            ["anomaly", "--against", "images"],
            r"^error: against=images: must be other data, because data.root has no default$",
        ),
        (["anomaly", "--against", "cifar"], r"^error: against=cifar: must be one of arrays, auto, celeba, "),
        pytest.param(
            ["anomaly", "--against", "strokes", *SMALL],
            r"^error: metric=anomaly: cannot .*: its images are \(1, 28, 28\)",
            marks=pytest.mark.slow,  # draws all strokes
        ),
    ],
)
def test_bad_input_is_one_line(run, arguments, line, monkeypatch, tmp_path):
    monkeypatch.setenv("VAE_DATA", str(tmp_path))
    with pytest.raises(SystemExit, match=line):
        evaluate.main([str(run()), *arguments])


@pytest.mark.parametrize("count", ["0", "-1", "many"])
def test_counts_must_be_positive_integers(count, capsys):
    with pytest.raises(SystemExit):
        evaluate.main(["run", "--samples", count])
    assert f"--samples: {count}: must be a positive integer" in capsys.readouterr().err


def test_a_run_that_cannot_be_written_to_is_measured_all_the_same(run, monkeypatch, capsys):
    folder = run()
    (folder / "metrics.json").write_text("{}")
    _, data = restored.data_of(checkpoints.read(folder / "checkpoints" / "best.ckpt")["vae"])
    monkeypatch.setattr(evaluate, "_other_data", lambda name: data)

    def refuse(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("tempfile.mkstemp", refuse)
    before = sorted(folder.rglob("*"))
    evaluate.main([str(folder), "reconstruction", "anomaly", "--against", "itself", *SMALL])
    said = capsys.readouterr()
    assert "psnr" in said.out and "auroc_latent" in said.out and "written to" not in said.out
    assert (
        said.err.count("evaluation.json: cannot be written (Read-only file system), so the table is all there is") == 1
    )
    assert sorted(folder.rglob("*")) == before


def test_a_measure_that_goes_wrong_ends_nothing_and_is_named(run, monkeypatch, capsys):
    folder = run()
    monkeypatch.setitem(measures.MEASURES, "likelihood", lambda subject: [][0])
    monkeypatch.setattr(measures, "CACHE", folder / "classifiers")
    monkeypatch.setattr("vae.evaluation.classifier.STEPS", 2)
    monkeypatch.setattr(measures, "STEPS", 2)
    evaluate.main([str(folder), *SMALL])
    said = capsys.readouterr()
    assert "\na quick look: gap and samples are of less work, too" in said.out
    assert "failed: likelihood (IndexError: list index out of range)" in said.out and "test/mse" in written(folder)
    assert "warning: the measure likelihood failed (IndexError: list index out of range)" in said.err
    assert "Traceback" not in said.err
    with pytest.raises(
        SystemExit, match=r"^error: metric=likelihood: cannot be measured in .*: IndexError: list index"
    ):
        evaluate.main([str(folder), "likelihood", "reconstruction"])
