import pytest
import torch

from vae.training.report import device_name


@pytest.mark.parametrize(("count", "name"), [(1, "CPU (1 thread)"), (2, "CPU (2 threads)")])
def test_threads_are_counted(count, name, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: count)
    assert device_name(torch.device("cpu")) == name
