"""A model on emulated boards computes what it does here, and its memory and instructions are counted."""

import re

import pytest
import torch
from c_models import a_c_model, needs_cc, run, some_images
from exported import CONV

from vae.use.c99 import cortex
from vae.use.c99.cortex import BOARDS, DRAWING, emulate, measure, memory

pytestmark = pytest.mark.skipif(bool(cortex.missing_tools()), reason=f"needs {', '.join(cortex.missing_tools())}")


@needs_cc
@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)
@pytest.mark.parametrize(("name", "int8"), [("dense", False), ("conv", True)])
def test_the_board_computes_what_this_machine_does(board, name, int8, tmp_path):
    model, code = a_c_model(name, int8, tmp_path)
    images = some_images(model, 4)
    here = run(code, images, 3)
    for place, each in enumerate(emulate(code, board, images.numpy(), 3)):
        torch.testing.assert_close(torch.tensor(each.mean), here.mean[place], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(torch.tensor(each.log_var), here.log_var[place], rtol=1e-4, atol=1e-5)
        assert each.score == pytest.approx(here.scores[place, 0].item(), rel=1e-4)
        assert abs(each.decoded.astype(int) - here.decoded[place].int().numpy()).max() <= 1
    assert place == 3


def test_instructions_grow_with_multiply_adds(tmp_path):
    """A dense layer's inner loop takes two loads, a multiply-add, a comparison and a branch a weight."""
    counts = {}
    for name, hidden in (("small", 40), ("large", 140)):
        (tmp_path / name).mkdir()
        model, code = a_c_model("dense", True, tmp_path / name, hidden=[hidden, 10])
        (seen,) = emulate(code, BOARDS[0], some_images(model, 1).numpy(), 3)
        counts[name] = seen.encoding
    weights = 100 * (35 + 10)
    assert 4 * weights < counts["large"] - counts["small"] < 7 * weights


@pytest.mark.slow
def test_long_calls_are_counted_whole(tmp_path):
    backbone = CONV | {"channels": [80, 160]}
    model, code = a_c_model("conv", True, tmp_path, shape=(3, 64, 64), backbone=backbone)
    (seen,) = emulate(code, BOARDS[0], some_images(model, 1).numpy(), 3)
    assert seen.decoding > 40 * 2**24  # which a timer of 24 bits ticks
    assert seen.scoring == pytest.approx(seen.encoding + seen.decoding, rel=0.1)


def test_an_emulation_that_takes_too_long_is_named_in_one_line(tmp_path, monkeypatch):
    model, code = a_c_model("dense", False, tmp_path)
    monkeypatch.setattr(cortex, "SECONDS", 0.001)
    with pytest.raises(ValueError, match=r"^arm-none-eabi-gcc: must end within 0\.001 s$"):
        measure(code, some_images(model, 1).numpy(), 3)


def test_memory_is_constants_and_code(tmp_path):
    _, code = a_c_model("conv", True, tmp_path)
    defined = dict(re.findall(r"#define (VAE_\w+) (\d+)", code.with_suffix(".h").read_text()))
    whole, drawing = memory(code, BOARDS[0]), memory(code, BOARDS[0], DRAWING)
    assert 0 < whole.flash - int(defined["VAE_CONSTANTS"]) < 4000
    assert 0 <= whole.ram - int(defined["VAE_RAM"]) < 16
    assert 0.3 * whole.flash < drawing.flash < 0.9 * whole.flash


def test_the_table_has_a_row_for_each_board(tmp_path):
    model, code = a_c_model("dense", False, tmp_path)
    table = measure(code, some_images(model, 2).numpy(), 3)
    assert [row[""] for row in table.rows] == ["Cortex-M4", "Cortex-M7"]
    assert all(row["flash to draw"] < row["flash"] and row["to decode"] < row["to score"] for row in table.rows)


def test_a_program_that_fails_is_named_in_one_line(tmp_path):
    (tmp_path / "model.c").write_text("nonsense")
    with pytest.raises(ValueError, match=r"^arm-none-eabi-gcc: failed \(.*error") as refused:
        memory(tmp_path / "model.c", BOARDS[0])
    assert "\n" not in str(refused.value)
