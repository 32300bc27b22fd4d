import gpu_check
import pytest
import torch


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so():
    with pytest.raises(SystemExit, match="device=cuda: torch finds no GPU"):
        gpu_check.main([])


@pytest.mark.slow
def test_without_a_gpu_it_shows_what_is_measured(capsys):
    with pytest.raises(SystemExit) as ended:
        gpu_check.main(["times", "--device", "cpu", "--images", "300", "--epochs", "2"])
    assert not ended.value.code
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("no GPU · torch ")
    for name in ("dense, batch 128", "conv, batch 128", "2×200, latent_dim 50, batch 20"):
        (row,) = (line for line in lines if line.startswith(name))
        seconds, hand, ratio = map(float, row.removeprefix(name).split())
        assert seconds > 0 and hand > 0 and ratio > 0
    (row,) = (line for line in lines if "figures=none" in line)
    assert row.split()[-2] == "2"
