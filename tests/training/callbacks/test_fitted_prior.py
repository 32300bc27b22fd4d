"""A prior that is fitted to the codes, in whole runs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import vae
from vae.data.loader import evaluation_loader
from vae.model.build import build
from vae.model.priors import Learned
from vae.training.run import train_run


@pytest.mark.parametrize("ema", ["0.0", "0.9"])
def test_what_is_loaded_has_the_density_of_its_own_codes(
    image_run: Callable[..., dict[str, Any]], tmp_path: Path, ema: str
) -> None:
    settings = image_run("objective=rae", "prior=learned", "epochs=2", "figures=none", f"ema={ema}")
    metrics = train_run(settings, tmp_path)
    assert metrics["test/recon"] > 0 and "test/total" not in metrics
    model = vae.load(tmp_path).vae
    source = build(settings, "data")
    images = evaluation_loader(source, source.load().train.some(10_000), "train")
    with torch.no_grad():
        codes = torch.cat([model.encode(batch, labels).mean for batch, labels in images])
        own, fitted = model.prior(), Learned(2)
        fitted.fit(codes)
        assert torch.allclose(own.log_prob(codes), fitted().log_prob(codes), atol=1e-3)
    assert isinstance(model.prior, Learned) and own.stddev.max() != 1
