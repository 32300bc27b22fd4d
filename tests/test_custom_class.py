"""A user's own class from outside the package: `prior._target_=mypkg.MyPrior`."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import vae
from vae.model.build import refuse_foreign_classes

ROOT = Path(__file__).parents[1]
MODULE = '''
import torch
from torch.distributions import Independent, Laplace
from vae.model.priors import Prior


class MyPrior(Prior):
    """Independent Laplace distributions: one that no formula is known for."""

    def __init__(self, latent_dim, scale=1.0):
        super().__init__()
        self.register_buffer("scale", torch.full((latent_dim,), float(scale)))

    def forward(self, state=None):
        return Independent(Laplace(torch.zeros_like(self.scale), self.scale), 1)
'''


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, image_folder: Path) -> Path:
    """The folder of a run with a user's prior; the module lies beside it."""
    outside = tmp_path_factory.mktemp("outside")
    (outside / "mypkg.py").write_text(MODULE)
    command = [
        *("train.py", "data=images", f"data.root={image_folder}", "data.channels=1", "data.batch_size=16", "epochs=1"),
        *("prior._target_=mypkg.MyPrior", "+prior.scale=2", f"hydra.run.dir={outside / 'run'}"),
        *("backbone.hidden=[16,8]", "trainer.accelerator=cpu", "figures.only=[manifold,clusters,pairs]"),
    ]
    environment = os.environ | {"PYTHONPATH": str(outside)}
    result = subprocess.run([sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return outside / "run"


def test_it_trains_with_its_own_arguments(trained):
    assert json.loads((trained / "status.json").read_text())["state"] == "completed"
    metrics = json.loads((trained / "metrics.json").read_text())
    assert metrics["test/total"] == pytest.approx(metrics["test/recon"] + metrics["test/kl"])
    assert "my prior prior" in (trained / "train.log").read_text()


def test_it_is_loaded_only_with_trust(trained, monkeypatch):
    with pytest.raises(ValueError, match=r"mypkg\.MyPrior.*trust=True"):
        vae.load(trained)
    assert "mypkg" not in sys.modules  # refused before it was imported
    monkeypatch.syspath_prepend(trained.parent)
    model = vae.load(trained, trust=True).vae
    prior: Any = model.prior
    assert type(prior).__name__ == "MyPrior" and prior.scale.tolist() == [2.0, 2.0]
    terms = model(torch.rand(4, 1, 10, 12))
    assert terms.total.shape == (4,) and terms.total.isfinite().all()


def refused(prior: dict[str, Any]) -> bool:
    own = {"_target_": "vae.model.priors.Isotropic", "latent_dim": 2}
    try:
        refuse_foreign_classes({"backbone": own, "posterior": own, "likelihood": own, "prior": prior})
    except ValueError as error:
        assert "trust=True" in str(error)
        return True
    return False


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "vaetools.Prior",
        "vae",
        "vae.load",
        "vae.common.files.write_json",  # would write anywhere
        "vae.common.files.os.system",  # what a module of the package has imported is not the package's
        "vae.model.priors.torch.hub.load",
        "vae.model.priors.nn.Linear",
        "vae.model.posteriors.DiagonalNormal",
        "vae.model.priors.NoSuchClass",
        "vae.nowhere.Prior",
        "",
        None,
        3,
    ],
)
def test_only_the_package_s_own_modules_need_no_trust(target):
    assert refused({"_target_": target})
    assert refused({"_target_": "vae.model.priors.Isotropic", "latent_dim": {"_target_": target}})
    assert refused({"_target_": "vae.model.priors.Isotropic", "parts": [[{"inner": {"_target_": target}}]]})


@pytest.mark.parametrize("target", ["vae.model.priors.Isotropic", "vae.model.priors.Correlated"])
def test_the_package_s_own_modules_are_built(target):
    assert not refused({"_target_": target, "latent_dim": 2})


def test_a_class_hidden_in_a_tuple_is_found():
    own = {"_target_": "vae.model.priors.Isotropic"}
    hidden = own | {"latent_dim": ({"_target_": "torch.nn.Identity"},)}
    with pytest.raises(ValueError, match=r"torch\.nn\.Identity"):
        refuse_foreign_classes({"backbone": own, "posterior": own, "likelihood": own, "prior": hidden})
