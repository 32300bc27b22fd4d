"""Programs out of files are checked against torch, with batches of other sizes than the one they were followed with."""

import json

import pytest
import torch
from exported import CODED, MODELS, a_model, inputs

from vae.use.export import refuse, write
from vae.use.portable import programs_of

REASON = "comes with the extra export"
METADATA = {"data": "insects", "shape": [1, 5, 7], "classes": ["ä", "b", "c"], "config": {"beta": 1.0, "limit": None}}


def agree(name, suffix, folder, wanted=()):
    """Every program of a model, in a file of its own, gives what torch gives."""
    model = a_model(**(MODELS | CODED)[name])
    programs, left_out = programs_of(model)
    assert not left_out
    for key in wanted or programs:
        program = programs[key]
        run = write(program, folder / f"{key}{suffix}", METADATA)
        for n in (1, 5):
            given, _ = inputs(model, n)
            if key == "prior":  # reads a sequence
                given["codes"] = given["codes"].flatten(1)
            given = {each: given[each] for each in program.inputs}
            with torch.no_grad():
                expected = program.module(**given)
            found = run(**given)
            assert list(found) == list(expected)
            for output in expected:
                assert found[output].shape == expected[output].shape
                assert torch.allclose(found[output], expected[output], rtol=1e-4, atol=2e-5), (name, key, output, n)


def test_onnx_of_a_mixture(tmp_path):
    pytest.importorskip("onnxruntime", reason=REASON)
    agree("diagonal mixture", ".onnx", tmp_path, ["sampler"])


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS | CODED)
def test_onnx(name, tmp_path):
    pytest.importorskip("onnxruntime", reason=REASON)
    agree(name, ".onnx", tmp_path)


def test_torch_programs_of_a_mixture(tmp_path):
    agree("diagonal mixture", ".pt2", tmp_path, ["sampler"])


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS | CODED)
def test_torch_programs(name, tmp_path):
    agree(name, ".pt2", tmp_path)


def test_torch_programs_say_what_they_hold(tmp_path):
    program = programs_of(a_model())[0]["encoder"]
    write(program, tmp_path / "encoder.pt2", METADATA)
    told = {"metadata.json": ""}
    torch.export.load(tmp_path / "encoder.pt2", extra_files=told)
    assert json.loads(told["metadata.json"]) == METADATA
    assert str(tmp_path.parent).encode() not in (tmp_path / "encoder.pt2").read_bytes()


@pytest.mark.slow
def test_onnx_files_say_what_they_hold(tmp_path):
    onnx = pytest.importorskip("onnx", reason=REASON)
    program = programs_of(a_model())[0]["encoder"]
    write(program, tmp_path / "encoder.onnx", METADATA)
    model = onnx.load(tmp_path / "encoder.onnx")
    told = {each.key: each.value for each in model.metadata_props}
    assert told.pop("data") == "insects"
    assert {key: json.loads(value) for key, value in told.items()} | {"data": "insects"} == METADATA
    assert [each.version for each in model.opset_import] == [18]
    (images,) = model.graph.input
    assert images.name == "images"
    shape = [dim.dim_param or dim.dim_value for dim in images.type.tensor_type.shape.dim]
    assert shape == ["batch", 1, 5, 7]
    assert b"portable.py" not in (tmp_path / "encoder.onnx").read_bytes()  # no stack traces


@pytest.mark.slow
def test_int8_costs_little_and_saves_three_quarters(tmp_path):
    pytest.importorskip("onnxruntime", reason=REASON)
    dense = {"_target_": "vae.model.backbones.Dense", "latent_dim": 3, "hidden": [400, 300]}
    program = programs_of(a_model(backbone=dense))[0]["decoder"]
    run = write(program, tmp_path / "small.onnx", METADATA, int8=True)
    weights = sum(weight.numel() for weight in program.module.parameters())
    assert (tmp_path / "small.onnx").stat().st_size < 1.2 * weights
    z = torch.randn(50, 3)
    with torch.no_grad():
        expected = program.module(z)["logits"]
    error = (run(z=z)["logits"] - expected).abs().mean() / expected.std()
    assert 1e-4 < error < 0.01


class Undecided(torch.nn.Module):
    """Asks for what nobody can know before there is an image."""

    def forward(self, z):
        return {"images": z if z.sum() > 0 else -z}


def test_what_torch_cannot_follow_is_refused_in_one_line(tmp_path):
    program = programs_of(a_model())[0]["decoder"]._replace(module=Undecided(), outputs={"images": torch.zeros(2, 3)})
    with pytest.raises(ValueError, match=r"^torch cannot follow it: ") as error:
        write(program, tmp_path / "decoder.pt2", METADATA)
    assert "\n" not in str(error.value) and not list(tmp_path.iterdir())


@pytest.mark.parametrize("to", ["torch", "safetensors"])
def test_int8_is_refused_where_there_is_none(to):
    with pytest.raises(ValueError, match=rf"^--int8: must be used with --to onnx or c, not with --to {to}, "):
        refuse(to, int8=True)


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setattr("vae.settings.errors.find_spec", lambda package: None)
    with pytest.raises(ValueError, match=r'^onnx is not installed; it comes with: pip install .* "\.\[export\]"$'):
        refuse("onnx", int8=False)
    refuse("torch", int8=False)
