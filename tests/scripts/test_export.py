"""The program must write what the library does, say what it cost, and say in one line what it cannot do."""

import importlib.util
import json
import os
import shutil

import export
import pytest
import torch

import vae
from vae.common.files import write_json


def test_torch_programs_are_written_compared_and_described(run, tmp_path, capsys):
    folder = run("conditional=true")
    export.main([str(folder), "--to", "torch"])
    out = folder / "export"
    names = ["decoder.pt2", "encoder.pt2", "metadata.json", "model.ckpt", "sampler.pt2"]
    assert sorted(each.name for each in out.iterdir()) == names
    told = json.loads((out / "metadata.json").read_text())
    assert (told["run"], told["shape"], told["classes"], told["epoch"]) == ("run", [1, 10, 12], ["a", "b"], 2)
    assert told["files"]["encoder.pt2"]["inputs"] == {"images": ["batch", 1, 10, 12], "labels": ["batch"]}
    assert told["files"]["model.ckpt"]["bytes"] == (out / "model.ckpt").stat().st_size
    checked = told["parity"]["torch"]
    assert checked["exported"] == pytest.approx(checked["torch"]) and max(checked["errors"].values()) < 1e-5
    printed = capsys.readouterr().out
    assert f"{checked['torch']['total']:.4f}" in printed and "images, labels → mean, scale" in printed

    model, labels = vae.load(out / "model.ckpt"), torch.tensor([0, 1, 1])
    assert torch.equal(model.sample(3, labels=labels), vae.load(folder).sample(3, labels=labels))
    program = torch.export.load(out / "decoder.pt2").module()
    z = torch.randn(3, 2)
    assert torch.allclose(program(z=z, labels=labels)["images"], model.decode(z, labels), atol=1e-6)


def test_the_weights_alone(run, tmp_path, capsys):
    pytest.importorskip("safetensors", reason="comes with the extra export")
    folder = run("prior=correlated")
    export.main([str(folder), "--to", "safetensors", "--out", str(tmp_path / "out")])
    assert sorted(each.name for each in (tmp_path / "out").iterdir()) == ["metadata.json", "model.safetensors"]
    assert f"{tmp_path / 'out' / 'model.safetensors'}" in capsys.readouterr().out
    found = vae.load(tmp_path / "out" / "model.safetensors")
    assert torch.equal(found.sample(3), vae.load(folder).sample(3)) and found.classes == ("a", "b")


def test_metadata_keep_what_other_formats_of_the_model_have(tmp_path, capsys):
    file = tmp_path / "metadata.json"

    def described(model, name):
        export._describe(file, {"run": model, "shape": (1, 2)}, {"files": {name: {}}, "parity": {name: {}}})
        return list(json.loads(file.read_text())["files"])

    assert described("a", "onnx") == ["onnx"]
    assert described("a", "torch") == ["onnx", "torch"]
    assert described("b", "torch") == ["torch"]


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
def test_c_is_written_compared_and_measured(run, capsys):
    folder = run("backbone.hidden=[9,6]")
    export.main([str(folder), "--to", "c"])
    export.main([str(folder), "--to", "c", "--int8"])
    out = folder / "export"
    names = ["metadata.json", "model.c", "model.h", "model_int8.c", "model_int8.h"]
    assert sorted(each.name for each in out.iterdir()) == names
    told = json.loads((out / "metadata.json").read_text())
    exact, rounded = told["parity"]["c"], told["parity"]["c_int8"]
    assert exact["exported"] == pytest.approx(exact["torch"], abs=1e-4) and exact["images"] == 6
    assert 1e-5 < abs(rounded["exported"]["total"] - rounded["torch"]["total"]) < 1
    printed = capsys.readouterr().out
    file = told["files"]["model_int8.c"]
    assert f"#define VAE_RAM {file['ram']} " in (out / "model_int8.h").read_text()
    assert f"{file['constants']:,} bytes of constants, {file['ram']:,} bytes of buffers (VAE_RAM)" in printed
    assert file["multiply_adds"] == {"encoder": 120 * 9 + 9 * 6 + 2 * 6 * 2, "decoder": 2 * 6 + 6 * 9 + 9 * 120}
    assert "multiply-adds of an image: encoder 1,158, decoder 1,146" in printed
    for term in ("total", "recon", "kl"):
        assert f"{rounded['exported'][term]:.4f}" in printed
    if "left out" not in printed:
        m4, *_ = told["cortex"]["model_int8.c"]
        assert m4[""] == "Cortex-M4" and 0 < m4["flash"] - file["constants"] < 4000 and f"{m4['flash']}" in printed


def test_c_without_a_compiler_is_written_alone(run, capsys, monkeypatch):
    folder = run("backbone.hidden=[9,6]")
    monkeypatch.setattr("shutil.which", lambda name: None)
    export.main([str(folder), "--to", "c"])
    assert sorted(each.name for each in (folder / "export").iterdir()) == ["metadata.json", "model.c", "model.h"]
    *_, first, second = capsys.readouterr().out.splitlines()
    assert first == "left out: comparison with torch (there is no C compiler: cc)"
    assert second.startswith("left out: Cortex-M (not installed: arm-none-eabi-gcc")


def test_a_model_that_c_cannot_run_is_refused_before_anything_is_written(run):
    folder = run("prior=flow")
    with pytest.raises(SystemExit, match=r"^error: prior=Flow: must be Gaussian") as stop:
        export.main([str(folder), "--to", "c"])
    assert "\n" not in str(stop.value) and not (folder / "export").exists()


@pytest.mark.slow
def test_int8_of_onnx(run, tmp_path, capsys):
    pytest.importorskip("onnxruntime", reason="comes with the extra export")
    folder = run("backbone.hidden=[256,128]")
    export.main([str(folder)])
    export.main([str(folder), "--int8"])
    told = json.loads((folder / "export" / "metadata.json").read_text())
    exact, rounded = told["parity"]["onnx"], told["parity"]["onnx_int8"]
    assert max(exact["errors"].values()) < 1e-4 < rounded["errors"]["images"] < 0.1
    assert (
        0 < abs(rounded["exported"]["total"] - rounded["torch"]["total"]) < 0.5 and exact["torch"] == rounded["torch"]
    )
    sizes = {name: each["bytes"] for name, each in told["files"].items()}
    assert sizes["decoder_int8.onnx"] < 0.5 * sizes["decoder.onnx"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing"], r"^error: missing: must be the folder of a run or a checkpoint file"),
        (["missing", "--to", "torch", "--int8"], r"^error: --int8: must be used with --to onnx or c"),
    ],
)
def test_errors_are_one_line(arguments, message, monkeypatch):
    some = importlib.util.find_spec("json")
    monkeypatch.setattr("vae.settings.errors.find_spec", lambda package: some)
    with pytest.raises(SystemExit, match=message) as stop:
        export.main(arguments)
    assert "\n" not in str(stop.value)


def test_foreign_classes_need_trust(run, tmp_path):
    folder = run()
    file = folder / "checkpoints" / "best.ckpt"
    content = torch.load(file, weights_only=True)
    content["vae"]["config"]["likelihood"] = {"_target_": "torch.nn.Identity"}
    torch.save(content, file)
    with pytest.raises(SystemExit, match=r"^error: the checkpoint asks for the class torch\.nn\.Identity"):
        export.main([str(folder), "--to", "torch"])
    assert not (folder / "export").exists()


def test_a_sampler_that_cannot_be_had_is_named(run, tmp_path, capsys, monkeypatch):
    def refused(prior, noise, choice):
        raise ValueError("Strange: must be drawn from noise")

    folder = run()
    monkeypatch.setattr("vae.use.portable.of_noise", refused)
    export.main([str(folder), "--to", "torch"])
    assert not (folder / "export" / "sampler.pt2").exists() and (folder / "export" / "decoder.pt2").exists()
    assert capsys.readouterr().out.endswith("left out: sampler (Strange: must be drawn from noise)\n")


def test_a_place_that_cannot_be_written_is_no_reason_to_leave_the_sampler_out(run, tmp_path, monkeypatch):
    folder = run()
    monkeypatch.setattr("vae.use.export.write_torch", lambda program, path, metadata: write_json(path, {}))
    monkeypatch.setattr("vae.use.export.read_torch", lambda path: None)
    (tmp_path / "out" / "sampler.pt2").mkdir(parents=True)
    with pytest.raises(SystemExit, match=r"^error: .*sampler\.pt2: must be a regular file or a new name"):
        export.main([str(folder), "--to", "torch", "--out", str(tmp_path / "out")])


def test_a_run_that_cannot_be_written_to_is_refused_before_the_work(run, monkeypatch):
    folder = run()
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(SystemExit, match=r"^error: .*run: cannot be written to; name another place with --out$"):
        export.main([str(folder), "--to", "torch"])


def test_metadata_that_cannot_be_read_are_named(tmp_path):
    (tmp_path / "metadata.json").write_text("{")
    with pytest.raises(ValueError, match=r"metadata\.json: cannot be read as JSON"):
        export._describe(tmp_path / "metadata.json", {}, {})
