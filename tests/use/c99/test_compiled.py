"""Compiled C called from Python."""

import shutil
import subprocess

import pytest
import torch
from c_models import a_c_model, needs_cc, run, some_images

from vae.use.c99.compiled import library, runnables
from vae.use.parity import parity
from vae.use.portable import programs_of


@needs_cc
@pytest.mark.parametrize("int8", [False, True])
def test_it_is_called_with_what_a_program_is_called_with(int8, tmp_path):
    model, code = a_c_model("conv", int8, tmp_path)
    images = some_images(model, 20)
    programs = runnables(code, model.shape, 3)
    coded = programs["encoder"](images=images / 255)
    alone = run(code, images, 3)
    assert torch.equal(coded["mean"], alone.mean) and torch.allclose(coded["scale"], (alone.log_var / 2).exp())
    decoded = programs["decoder"](z=coded["mean"])
    assert torch.equal(decoded["logits"].flatten(1), alone.parameters)
    assert torch.equal((255 * decoded["images"]).round().byte().flatten(1), alone.decoded)


@needs_cc
def test_its_parity_is_measured_like_that_of_other_programs(tmp_path):
    model, code = a_c_model("conv", False, tmp_path)
    ours = {name: program.module for name, program in programs_of(model)[0].items()}
    batches = [(some_images(model, 30) / 255, torch.zeros(30).long())]
    found = parity(model, ours, runnables(code, model.shape, 3), batches)
    assert max(map(abs, found.loss.values())) < 1e-3 and list(found.errors) == ["mean", "scale", "images"]
    assert found.errors["images"] <= 0.501 / 255  # images are bytes


@needs_cc
def test_what_cannot_be_compiled_is_refused_in_one_line(tmp_path):
    (tmp_path / "model.c").write_text("int main(")
    with pytest.raises(ValueError, match=r"model\.c: cannot be compiled \(.*error") as refused:
        library(tmp_path / "model.c")
    assert "\n" not in str(refused.value)


@needs_cc
@pytest.mark.skipif(shutil.which("c++") is None, reason="there is no C++ compiler")
def test_cpp_programs_call_it(tmp_path):
    a_c_model("dense", False, tmp_path)
    main = '#include "model.h"\nint main() { float z[VAE_LATENTS]; vae_sample(7, 0, z); return 0; }\n'
    (tmp_path / "main.cpp").write_text(main)
    for command in ("cc -std=c99 -c model.c", "c++ -Wall -Wextra -Werror main.cpp model.o -lm -o program", "./program"):
        subprocess.run(command.split(), cwd=tmp_path, check=True)
