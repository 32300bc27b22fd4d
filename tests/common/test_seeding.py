import hashlib
import itertools
import subprocess
import sys

import torch

from vae.common.seeding import derive


def test_the_same_keys_give_the_same_seed_on_every_machine_and_in_every_process():
    assert derive(0, 1, "train") == int(hashlib.sha256(b"(0, 1, 'train')").hexdigest()[:16], 16) // 2
    code = "from vae.common.seeding import derive; print(derive(0, 1, 'train'))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(result.stdout) == derive(0, 1, "train")


def test_every_key_and_its_place_matter():
    keys = [*itertools.product(range(20), range(20), ("train", "val")), (0,), (1,), ("val",), ("0",), (0, 0), ("0", 0)]
    assert len({derive(*key) for key in keys}) == len(keys)


def test_seeds_fit_torch_and_numpy():
    for i in range(1000):
        assert 0 <= derive(i) < 2**63
    torch.Generator().manual_seed(max(derive(i) for i in range(1000)))


def test_nearby_keys_give_unrelated_streams():
    streams = torch.stack([torch.randn(2000, generator=torch.Generator().manual_seed(derive(i))) for i in range(20)])
    correlations = torch.corrcoef(streams) - torch.eye(20)
    assert correlations.abs().max() < 6 / 2000**0.5
