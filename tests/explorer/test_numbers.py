import itertools
import json
import shutil
import subprocess
from importlib.resources import files

import pytest
import torch

from vae.explorer.numbers import floats, rounded, small, step_of, steps

RUN = """
unpacked(JSON.parse(require("fs").readFileSync(0, "utf8")))
  .then((read) => console.log(JSON.stringify(read.map((array) => Array.from(array)))));
"""


def read(packed, folder):
    """What the page reads, by Node."""
    program = folder / "program.js"
    program.write_text(files("vae.explorer").joinpath("numbers.js").read_text() + RUN)
    done = subprocess.run(["node", program], input=json.dumps(packed), capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
@pytest.mark.parametrize("count", range(1, 9))  # of bytes that are no whole quads
def test_the_page_reads_what_was_packed(tmp_path, count):
    bytes_, reals = torch.randint(0, 256, (count,), dtype=torch.uint8), torch.randn(3, count) * 1e6
    seen = read([small(bytes_), floats(reals), *(steps(reals, bits) for bits in (3, 12, 21, 30))], tmp_path)
    assert seen[0] == bytes_.tolist()
    assert torch.equal(torch.tensor(seen[1]), reals.flatten())
    for values, bits in zip(seen[2:], (3, 12, 21, 30), strict=True):
        torch.testing.assert_close(torch.tensor(values), rounded(reals, bits).flatten(), rtol=1e-6, atol=0)


def test_rounding_is_to_the_nearest_step():
    values = torch.randn(50, 40)
    error = (rounded(values, 12) - values).abs().max().item()
    step = step_of(values, 12)
    assert step == pytest.approx(values.norm().item() / 4096) and 0.45 * step < error < 0.501 * step


def test_fewer_bits_are_shorter_text():
    values = torch.randn(300, 300)
    lengths = [len(steps(values, bits)["deflated"]) for bits in (14, 18, 22)]
    # A bit of each of 90,000 numbers is 11 kB, in base85 14 kB.
    assert [b - a for a, b in itertools.pairwise(lengths)] == pytest.approx([4 * 14e3] * 2, rel=0.15)
    assert lengths[0] < 0.75 * len(floats(values)["deflated"])


def test_nothing_in_the_text_could_end_a_script_or_call(tmp_path):
    text = floats(torch.randn(100_000))["deflated"]
    assert not set('<&{}(="\\') & set(text) and len(set(text)) == 85


def test_zeros_and_an_empty_matrix_are_packed():
    assert torch.equal(rounded(torch.zeros(2, 3), 10), torch.zeros(2, 3))
    assert steps(torch.zeros(2, 3), 10)["bytes"] == 1
