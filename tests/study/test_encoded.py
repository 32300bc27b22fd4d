import pytest
import torch

from vae.data.loader import evaluation_loader
from vae.model.checkpoints import about
from vae.study.scene import Scene


@pytest.mark.parametrize("binarize", ["none", "dynamic"])
def test_a_scene_and_a_subject_have_the_same_codes(subject, compose, binarize):
    chosen = ["posterior=full", f"data.binarize={binarize}"]
    measured = subject(*chosen)
    loader = evaluation_loader(measured._source, measured.data.test, "test")
    drawn = Scene(measured.vae, loader, about(compose("data=strokes", *chosen), measured.data), 1)
    torch.rand(3)
    for ours, others in zip(measured.codes, drawn.codes, strict=True):
        assert torch.equal(ours, others)
    assert torch.equal(measured.aggregate, drawn.aggregate) and torch.equal(measured.prior.mean, drawn.prior.mean)
