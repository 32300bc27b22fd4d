import functools
import itertools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from vae.settings.compose import composed
from vae.settings.config import check, fingerprint, flatten, plain
from vae.settings.errors import explain
from vae.settings.machine import check_machine
from vae.settings.ranges import RANGES

ROOT = Path(__file__).parents[2]


composed_once = functools.cache(composed)


def refusal(cfg: Callable[[], DictConfig]) -> str:
    """The line that a configuration is refused with, be it while it is composed or when it is checked."""
    with pytest.raises(Exception) as caught:
        check(cfg())
    line = explain(caught.value)
    assert "\n" not in line
    assert not any(word in line for word in ("Error:", "object_type", "full_key", "Rule("))
    return line


HUGE = [
    *(
        "latent_dim=99999999999999999999",
        "epochs=2147483648",
        "seed=99999999999999999999",
        "backbone.hidden=[10000000000]",
    ),
    *(
        "data.batch_size=99999999999999999999",
        "data.limit=99999999999999999999",
        "evaluate.samples=99999999999999999999",
    ),
    *(
        "evaluate.images=99999999999999999999",
        "figures.every_n_epochs=99999999999999999999",
        "objective.cycles=10000000000",
    ),
    *("trainer.log_every_n_steps=99999999999999999999", "trainer=ddp trainer.devices=99999999999999999999"),
    *(
        "prior=flow prior.layers=1000",
        "prior=flow prior.hidden=[10000000000]",
        "prior=mixture prior.components=10000000000",
    ),
    *("prior=vamp prior.components=10000000000", "objective=iwae objective.samples=10000000000"),
    *("backbone=conv backbone.channels=[10000000000]", "backbone=conv backbone.hidden=10000000000"),
    *("data=images data.root=photos data.size=[28,10000000000]", "data=strokes data.seed=99999999999999999999"),
]

# Overrides that are refused, the beginning of the sentence, and what else it says.
CORRELATED = "prior=correlated prior.covariance="
IMAGES = "data=images data.root=photos "
WRONG_VALUES = [
    ("latent_dim=0", "latent_dim=0: ", "an integer from 1 to 1"),
    ("latent_dim=-1", "latent_dim=-1: ", "an integer from 1 to 1"),
    ("epochs=0", "epochs=0: ", "an integer from 1 to 1"),
    ("seed=-1", "seed=-1: ", "an integer from 0 to 4294967295"),
    ("seed=4294967296", "seed=4294967296: ", "from 0 to 4294967295"),
    ("beta=-1", "beta=-1", "a number from 0 to 1e+30"),
    ("beta=nan", "beta=nan: ", "a number from 0 to 1e+30"),
    ("beta=inf", "beta=inf: ", "a number from 0 to 1e+30"),
    ("experiment=tutorial_2d latent_dim=0", "latent_dim=0: ", "an integer from 1 to 1"),
    ("data.batch_size=0", "data.batch_size=0: ", "an integer from 1 to 1"),
    ("data.val_fraction=0", "data.val_fraction=0.0: ", "between 0 and 1"),
    ("data.val_fraction=1", "data.val_fraction=1.0: ", "between 0 and 1"),
    ("data.limit=1", "data.limit=1: ", "null or an integer from 2 to 1000000000"),
    ("data.binarize=maybe", "data.binarize=maybe: ", "one of none, threshold, dynamic"),
    ("data=strokes data.seed=-1", "data.seed=-1: ", "an integer from 0 to 4294967295"),
    ("data=strokes data.correlation=[[1]]", "data.correlation=[[1]]: ", "6×6, but it is 1×1"),
    ("data=factors data.test_fraction=1", "data.test_fraction=1.0: ", "between 0 and 1"),
    (IMAGES + "data.size=[28]", "data.size=[28]: ", "null or [height, width]"),
    (IMAGES + "data.size=[0,28]", "data.size=[0, 28]: ", "two integers from 1 to 10000"),
    (IMAGES + "data.channels=2", "data.channels=2: ", "1 or 3"),
    (IMAGES + "data.test_fraction=1", "data.test_fraction=1.0: ", "between 0 and 1"),
    ("backbone.hidden=[]", "backbone.hidden=[]: ", "a list of 1 to 100 integers from 1 to 1000000"),
    ("backbone.hidden=[512,0]", "backbone.hidden=[512, 0]: ", "a list of 1 to 100 integers from 1 to 1000000"),
    ("backbone=conv backbone.channels=[-1]", "backbone.channels=[-1]: ", "a list of 1 to 20 integers from 1 to 100000"),
    ("backbone=conv backbone.hidden=0", "backbone.hidden=0: ", "an integer from 1 to 1"),
    (
        "likelihood=gaussian likelihood.sigma=0",
        "likelihood.sigma=0: ",
        "a number above 0, at most 1e+30, or one of the words learned, optimal",
    ),
    (
        "likelihood=gaussian likelihood.sigma=-0.1",
        "likelihood.sigma=-0.1: ",
        "a number above 0, at most 1e+30, or one of the words learned, optimal",
    ),
    (
        "likelihood=gaussian likelihood.sigma=guess",
        "likelihood.sigma=guess: ",
        "a number above 0, at most 1e+30, or one of the words learned, optimal",
    ),
    (
        "likelihood=gaussian likelihood.sigma=true",
        "likelihood.sigma=True: ",
        "a number above 0, at most 1e+30, or one of the words learned, optimal",
    ),
    ("prior=mixture prior.components=0", "prior.components=0: ", "an integer from 1 to 1"),
    ("prior=mixture prior.covariance=tied", "prior.covariance=tied: ", "one of diagonal, full"),
    (
        "prior=mixture posterior=tied",
        "posterior=tied: ",
        "diagonal or full with a prior that is not Gaussian (Mixture)",
    ),
    ("prior=vamp posterior=tied", "posterior=tied: ", "diagonal or full with a prior that is not Gaussian (Vamp)"),
    (
        "epochs=10 objective.annealing=linear objective.warmup=10.5",
        "objective.warmup=10.5: ",
        "at most the training's 10",
    ),
    ("prior=correlated objective.free_bits=0.1", "objective.free_bits_per=dimension: ", "whose KL is a sum over dim"),
    ("objective.annealing=linear", "objective.warmup=0: ", "above 0, the epochs that it rises over,"),
    (
        "objective.warmup=5",
        "objective.warmup=5: ",
        "0, because nothing rises over it, with objective.annealing=constant",
    ),
    ("objective.capacity=25 objective.free_bits=1", "objective.free_bits=1.0: ", "0 with objective.capacity"),
    ("objective=iwae beta=4", "beta=4: ", "left out, because objective=iwae has no β"),
    ("objective=autoencoder beta=0", "beta=0: ", "left out, because objective=autoencoder has no β"),
    ("objective=dip prior=vamp", "objective=dip: ", "a Gaussian prior, such as isotropic"),
    ("objective=tc prior=mixture", "objective=tc: ", "those of prior=mixture are nowhere independent"),
    ("report=first", "report=first: ", "one of best, last"),
    ("figures.walk=round", "figures.walk=round: ", "one of axis, conditional"),
    ("evaluate.method=guess", "evaluate.method=guess: ", "one of importance, ais"),
    ("prior=vamp prior.components=0", "prior.components=0: ", "an integer from 1 to 1"),
    ("prior=vamp prior.init=zeros", "prior.init=zeros: ", "one of images, random"),
    ("prior=flow prior.kind=glow", "prior.kind=glow: ", "one of nsf, maf"),
    ("prior=flow prior.layers=-1", "prior.layers=-1: ", "an integer from 0 to 100"),
    ("prior=flow prior.hidden=[]", "prior.hidden=[]: ", "a list of 1 to 100 integers from 1 to 1000000"),
    ("objective.annealing=square", "objective.annealing=square: ", "one of constant, linear, cosine, cyclical"),
    ("objective.warmup=-1", "objective.warmup=-1.0: ", "a number from 0 to 1e+30"),
    ("objective.warmup=nan", "objective.warmup=nan: ", "a number from 0 to 1e+30"),
    ("objective.cycles=0", "objective.cycles=0: ", "an integer from 1 to 1"),
    ("objective.free_bits=-0.1", "objective.free_bits=-0.1: ", "a number from 0 to 1e+30"),
    ("objective.free_bits=inf", "objective.free_bits=inf: ", "a number from 0 to 1e+30"),
    ("objective.free_bits_per=image", "objective.free_bits_per=image: ", "one of dimension, total"),
    ("objective.capacity=-1", "objective.capacity=-1.0: ", "null or a number from 0 to 1e+30"),
    ("objective.capacity=inf", "objective.capacity=inf: ", "null or a number from 0 to 1e+30"),
    ("objective=iwae objective.samples=0", "objective.samples=0: ", "an integer from 1 to 1"),
    ("objective=dreg objective.samples=-5", "objective.samples=-5: ", "an integer from 1 to 1"),
    ("objective=tc objective.beta=2", "objective.beta=2.0: ", "must be 1.0, as beta is"),
    ("objective=mmd objective.alpha=1.5", "objective.alpha=1.5: ", "from -1e+30 to 1, which leaves the KL out"),
    (
        "objective=mmd objective.alpha=-3 objective.weight=3",
        "objective.weight=3.0: ",
        "at least 1 − objective.alpha = 4",
    ),
    ("objective=mmd objective.weight=inf", "objective.weight=inf: ", "a number of at most 1e+30"),
    ("objective=dip objective.kind=3", "objective.kind=3: ", "1 (the posterior means) or 2 (the aggregate)"),
    ("objective=dip objective.off_diagonal=-1", "objective.off_diagonal=-1.0: ", "a number from 0 to 1e+30"),
    ("objective=dip objective.diagonal=nan", "objective.diagonal=nan: ", "a number from 0 to 1e+30"),
    ("optimizer.lr=0", "optimizer.lr=0.0: ", "a number above 0, at most 1e+30"),
    ("optimizer.lr=nan", "optimizer.lr=nan: ", "a number above 0, at most 1e+30"),
    ("optimizer.betas=[0.9]", "optimizer.betas=[0.9]: ", "two numbers in [0, 1)"),
    ("optimizer.betas=[0.9,1]", "optimizer.betas=[0.9, 1.0]: ", "two numbers in [0, 1)"),
    ("optimizer=adamw optimizer.weight_decay=-1", "optimizer.weight_decay=-1.0: ", "a number from 0 to 1e+30"),
    ("scheduler.warmup=1", "scheduler.warmup=1.0: ", "in [0, 1)"),
    ("scheduler=cosine scheduler.warmup=-0.1", "scheduler.warmup=-0.1: ", "in [0, 1)"),
    ("trainer.accelerator=abacus", "trainer.accelerator=abacus: ", "one of auto, cpu, gpu"),
    ("trainer.precision=8", "trainer.precision=8: ", "one of 32-true, 64-true"),
    ("trainer.log_every_n_steps=0", "trainer.log_every_n_steps=0: ", "an integer from 1 to 1"),
    ("trainer.gradient_clip_val=0", "trainer.gradient_clip_val=0.0: ", "null or a number above 0, at most 1e+30"),
    ("trainer.devices=0", "trainer.devices=0: ", "1, or [index]"),
    ("trainer.devices=2", "trainer.devices=2: ", "1, or [index]"),
    ("trainer.devices=[0,1]", "trainer.devices=[0, 1]: ", "1, or [index]"),
    ("trainer.accelerator=tpu", "trainer.accelerator=tpu: ", "one of auto, cpu, gpu, cuda, mps"),
    ("trainer.devices=[-1]", "trainer.devices=[-1]: ", "1, or [index]"),
    ("trainer.devices=true", "trainer.devices=True: ", "1, or [index]"),
    ("trainer=ddp trainer.devices=[]", "trainer.devices=[]: ", "a list of different GPUs' indices"),
    ("figures.only=[images/manifold]", "figures.only=['images/manifold']: ", "a list of manifold, clusters"),
    ("figures.only=[[manifold]]", "figures.only=[['manifold']]: ", "a list of manifold, clusters"),
    ("backbone.hidden=${beta}", "backbone.hidden=1.0: ", "a list of 1 to 100 integers"),
    ("data.digests=${beta}", "data.digests=1.0: ", "file names, each with its SHA-256"),
    ("data.classes=[]", "data.classes=[]: ", "a list of 1 to 1000 names"),
    # Huge integers, which PyTorch answers with its stack, or with a loop that never ends
    *((key, f"{key.split()[-1].partition('=')[0]}=", "from ") for key in HUGE),
    # Classes
    (
        "prior._target_=vae.model.priors.Nothing",
        "prior._target_=vae.model.priors.Nothing: ",
        "one of vae.model.priors.Isotropic, ",
    ),
    ("prior._target_=vae.model.priors", "prior._target_=vae.model.priors: ", "or a class from elsewhere"),
    ("prior._target_=vae.model.priors.", "prior._target_=vae.model.priors.: ", "a class as package.module.Class"),
    (
        "prior._target_=vae.model.posteriors.Tied",
        "prior._target_=vae.model.posteriors.Tied: ",
        "one of vae.model.priors.Isotropic, ",
    ),
    (
        "trainer._target_=vae.training.run.train_run",
        "trainer._target_=vae.training.run.train_run: ",
        "one of pytorch_lightning.Trainer",
    ),
    ("prior=correlated prior._target_=vae.model.priors.Mixture", "prior.components: ", "cannot be left out"),
    ("prior._target_=os.system", "prior._target_=os.system: ", "a class that takes latent_dim"),
    ("prior._target_=os.sep", "prior._target_=os.sep: ", "a class"),
    ("prior._target_=os.nothing", "prior._target_=os.nothing: ", "cannot be imported"),
    (
        "optimizer._target_=torch.optim.Nothing",
        "optimizer._target_=torch.optim.Nothing: ",
        "has no attribute 'Nothing'",
    ),
    (
        "optimizer._target_=torch.optim.SGD",
        "optimizer._target_=torch.optim.SGD: ",
        "a class that takes betas; else add ~optimizer.betas",
    ),
    ("optimizer._partial_=false", "optimizer._partial_=False: ", "must be true"),
    ("scheduler._partial_=false", "scheduler._partial_=False: ", "must be true"),
    # Relations
    (CORRELATED + "[[1,2],[2,1]]", "prior.covariance=[[1, 2], [2, 1]]: ", "smallest eigenvalue is -1"),
    (CORRELATED + "[[1,0.5],[0,1]]", "prior.covariance=[[1, 0.5], [0, 1]]: ", "[0][1] and [1][0] differ by 0.5"),
    (CORRELATED + "[[1,0,0],[0,1,0]]", "prior.covariance=[[1, 0, 0], [0, 1, 0]]: ", "2×2, but it is 2×3"),
    (CORRELATED + "[[1,0],[0,1]] latent_dim=3", "prior.covariance=[[1, 0], [0, 1]]: ", "3×3, but it is 2×2"),
    (CORRELATED + "[[1,a],[a,1]]", "prior.covariance=[[1, 'a'], ['a', 1]]: ", "finite numbers"),
    (CORRELATED + "5", "prior.covariance=5: ", "not a list of rows"),
    ("prior.latent_dim=3", "prior.latent_dim=3: ", "must be 2, as latent_dim is"),
    ("posterior.latent_dim=3", "posterior.latent_dim=3: ", "must be 2, as latent_dim is"),
    ("backbone.latent_dim=1", "backbone.latent_dim=1: ", "must be 2, as latent_dim is"),
    ("objective.beta=-1", "objective.beta=-1.0: ", "must be 1.0, as beta is"),
    ("trainer.max_epochs=-1", "trainer.max_epochs=-1: ", "must be 30, as epochs is"),
]
NOT_COMPOSED = [
    # Types
    ("latent_dim=two", "latent_dim=two: ", "an integer"),
    ("latent_dim=1.5", "latent_dim=1.5: ", "an integer"),
    ("latent_dim=[2]", "latent_dim=[2]: ", "an integer"),
    ("latent_dim=null", "latent_dim=null: ", "an integer from 1 to 1000000"),
    ("beta=much", "beta=much: ", "a number"),
    ("data.batch_size=many", "data.batch_size=many: ", "an integer"),
    ("data.root=null", "data.root=null: ", "must be a text"),
    ("backbone.hidden=512", "backbone.hidden=512: ", "a list"),
    ("backbone.hidden=[wide]", "backbone.hidden=['wide']: ", "a list of 1 to 100 integers from 1 to 1000000"),
    ("optimizer.betas=0.9", "optimizer.betas=0.9: ", "a list"),
    ("optimizer.fused=maybe", "optimizer.fused=maybe: ", "true or false"),
    # Names
    ("latentdim=3", "latentdim: no such key", "did you mean latent_dim?"),
    ("+data.batchsize=1", "data.batchsize: no such key", "did you mean data.batch_size?"),
    ("hydra.sweeper.max_batch_size=x", "hydra.sweeper.max_batch_size=x: ", "an integer"),
    ("hydra.run.dirr=x", "hydra.run.dirr: no such key", "did you mean hydra.run.dir?"),
    ("data.digests=5", "data.digests=5: ", "file names, each with its SHA-256"),
    ("data.digests.new=a", "data.digests.new: no such key", "allowed are data.digests.t10k-images"),
    ("~latent_dim", "latent_dim: cannot be left out", "give it as latent_dim="),
    ("~optimizer._partial_", "optimizer._partial_=False: ", "must be true"),
    ("~prior._target_", "prior._target_: cannot be left out", "give it as prior._target_="),
    ("latent_dim=true", "latent_dim=True: ", "an integer from 1 to 1000000"),
    ("beta=true", "beta=True: ", "a number from 0 to 1e+30"),
    ("backbone.gated=0.5", "backbone.gated=0.5: ", "true or false"),
    ("+latentdim=3", "latentdim: no such key", "did you mean latent_dim?"),
    ("data.batchsize=1", "data.batchsize: no such key", "did you mean data.batch_size?"),
    ("prior.covariance=[[1,0],[0,1]]", "prior.covariance: no such key", "allowed are prior.latent_dim"),
    ("+prior.scale=2", "prior.scale: no such key", "allowed are prior.latent_dim"),
    ("likelihood.sigma=1", "likelihood.sigma: no such key", "allowed are none here"),
    ("objective=iwae objective.beta=2", "objective.beta: no such key", "allowed are objective.dreg, objective.samples"),
    ("objective=autoencoder objective.warmup=2", "objective.warmup: no such key", "allowed are none here"),
    ("objective=vae", "objective=vae: no such choice", "autoencoder, dip, dreg, elbo, iwae, mmd, tc"),
    ("objective=dip objective.kind=both", "objective.kind=both: ", "1 (the posterior means) or 2 (the aggregate)"),
    ("conditional=perhaps", "conditional=perhaps: ", "true or false"),
    ("objective=dreg objective.dreg=maybe", "objective.dreg=maybe: ", "true or false"),
    (
        "colour=red",
        "colour: no such key",
        "backbone, beta, conditional, data, epochs, evaluate, figures, latent_dim, likelihood",
    ),
    ("prior=isotopic", "prior=isotopic: no such choice", "correlated, flow, isotropic, learned, mixture, vamp"),
    ("data=cifar", "data=cifar: no such choice", "auto, factors, fashion_mnist, images, kmnist, mnist, strokes"),
    ("experiment=tutorial", "experiment=tutorial: no such choice", "tutorial_2d, tutorial_3d, tutorial_correlated"),
    ("prior._target_=Isotropic", "prior._target_=Isotropic: ", "package.module.Class"),
    ("prior._target_=3", "prior._target_=3: ", "package.module.Class"),
    (
        "prior._target_=nowhere.Prior",
        "prior._target_=nowhere.Prior: ",
        "cannot be imported (No module named 'nowhere')",
    ),
    # Missing and unreadable values
    ("data=images", "data.root: cannot be left out", "give it as data.root="),
    ("epochs=???", "epochs: cannot be left out", "give it as epochs="),
    ("~prior", "prior: cannot be left out", "give it as prior="),
    ("~conditional", "conditional: cannot be left out", "give it as conditional="),
    ("~trainer.devices", "trainer.devices: cannot be left out", "give it as trainer.devices="),
    ("~optimizer.betas.0", "one of the keys is an entry of a list", "give the whole list instead"),
    ("+prior._partial_=true", "prior._partial_=True: ", "must be left out"),
    ("+prior._args_=[1]", "prior._args_: ", "must be left out"),
    ("+optimizer._recursive_=false", "optimizer._recursive_: ", "must be left out"),
    ("+optimizer.epps=1e-9", "optimizer.epps: ", "must be left out, because torch.optim.Adam does not take it"),
    ("data.root=[1]", "data.root=[1]: ", "must be a text"),
    ("+figures.only.new={}", "figures.only={'new': {}}: ", "null or a list of manifold, clusters"),
    ("optimizer.betas={}", "optimizer.betas={}: ", "a list where one is now"),
    ("data.classes=[null]", "data.classes=[None]: ", "a list of 1 to 1000 names"),
    ("beta=1" + 400 * "0", "beta=1000", "000: must be a number from 0 to 1e+30"),
    ("optimizer._partial_=${oc.env:NO_SUCH_VARIABLE}", "optimizer._partial_: ", "'NO_SUCH_VARIABLE' not found"),
    ("prior._target_=${oc.env:NO_SUCH_VARIABLE}", "prior._target_: ", "'NO_SUCH_VARIABLE' not found"),
    ("latent_dim", "latent_dim: cannot be read", "key=value"),
    ("beta=${nothing}", "beta: ", "'nothing' not found"),
]


@pytest.mark.parametrize(("overrides", "beginning", "allowed"), WRONG_VALUES, ids=[row[0] for row in WRONG_VALUES])
def test_a_wrong_value_is_refused(overrides, beginning, allowed):
    def cfg() -> DictConfig:  # what composing gives, but the groups' choices are composed once for all values
        parsed = OverridesParser.create().parse_overrides(overrides.split())
        is_choice = [override.key_or_group in {*RANGES, "experiment"} for override in parsed]
        base = composed_once(*itertools.compress(overrides.split(), is_choice)).copy()
        for override in itertools.compress(parsed, (not choice for choice in is_choice)):
            OmegaConf.update(base, override.key_or_group, override.value())
        return base

    line = refusal(cfg)
    assert line.startswith(beginning) and allowed in line


@pytest.mark.parametrize(("overrides", "beginning", "allowed"), NOT_COMPOSED, ids=[row[0] for row in NOT_COMPOSED])
def test_a_wrong_type_or_name_is_refused(overrides, beginning, allowed):
    line = refusal(lambda: composed(*overrides.split()))
    assert line.startswith(beginning) and allowed in line


ACCEPTED = [
    "",
    "latent_dim=1 beta=0 epochs=1 seed=4294967295",
    "prior=correlated latent_dim=64",
    CORRELATED + "[[2.0,-0.7],[-0.7,1.5]]",
    CORRELATED + "[[2,0],[0,1]]",
    CORRELATED + "[[4]] latent_dim=1",
    "likelihood=gaussian likelihood.sigma=learned",
    "likelihood=gaussian likelihood.sigma=2",
    "likelihood=gaussian likelihood.sigma=optimal",
    "prior=mixture prior.components=1 prior.covariance=diagonal posterior=full",
    "prior=vamp prior.init=random",
    "prior=flow prior.layers=0 prior.kind=maf",
    "objective.annealing=cosine objective.warmup=0.5 objective.free_bits=0.25 objective.free_bits_per=total",
    "objective.capacity=0 objective.annealing=cyclical objective.cycles=1",
    "objective=mmd objective.alpha=-2 objective.weight=3",
    "objective=dip objective.kind=1 objective.diagonal=0 beta=0",
    IMAGES + "data.size=[64,48] data.channels=1",
    "data=strokes data.limit=2 data.binarize=dynamic",
    "trainer.gradient_clip_val=1 trainer.precision=64-true trainer.devices=[1]",
    "+optimizer.eps=1e-9",
    "prior._target_=collections.Counter +prior.scale=2",
    "optimizer._target_=torch.optim.SGD ~optimizer.betas ~optimizer.fused +optimizer.momentum=0.9",
    "figures.only=[true_posterior,latent/manifold,losses]",
]


@pytest.mark.parametrize("overrides", ACCEPTED)
def test_a_right_value_is_accepted_and_left_alone(overrides):
    cfg = composed(*overrides.split())
    before = OmegaConf.to_yaml(cfg)
    check(cfg)
    assert OmegaConf.to_yaml(cfg) == before


FLOATS = [
    *("beta", "data.val_fraction", "objective.warmup", "objective.free_bits", "objective.capacity", "optimizer.lr"),
    *("optimizer.weight_decay", "scheduler.warmup", "trainer.gradient_clip_val", "objective=mmd objective.alpha"),
    *("objective=mmd objective.weight", "objective=dip objective.diagonal", "objective=dip objective.off_diagonal"),
    *("likelihood=gaussian likelihood.sigma", "data=factors data.test_fraction"),
]


@pytest.mark.parametrize("key", FLOATS)
def test_a_float_that_single_precision_cannot_hold_is_refused(key):
    *choices, key = key.split()
    for value in (float("nan"), float("inf"), -float("inf"), 1e308, -1e308):
        cfg = composed_once(*choices).copy()
        OmegaConf.update(cfg, key, value)
        assert refusal(cfg.copy).startswith(f"{key}={value}: must be ")


def test_a_key_of_a_foreign_class_has_the_range_of_the_one_in_whose_place_it_stands():
    cfg = composed_once("prior=mixture").copy()
    cfg.prior._target_ = "collections.Counter"  # takes any key
    check(cfg)
    cfg.prior.components = 0
    assert refusal(lambda: cfg).startswith("prior.components=0: must be an integer from 1 to 100000")


def test_a_foreign_class_has_the_ranges_of_the_yaml_and_not_of_what_was_added():
    """`hidden` is a list in one YAML and an integer in the other; each class may have the other's key as well."""
    foreign = "backbone._target_=collections.Counter"  # takes any key
    for yaml, added, wrong in (("dense", "channels=many", "hidden=8"), ("conv", "gated=perhaps", "hidden=[8]")):
        check(composed(f"backbone={yaml}", foreign, f"+backbone.{added}"))
        assert refusal(lambda: composed(f"backbone={yaml}", foreign, f"+backbone.{added}", f"backbone.{wrong}"))  # noqa: B023


# A folder of one's own ------------------------------------------------------------------------------------------------

OWN = {
    "wide": "_target_: vae.model.backbones.Dense\nlatent_dim: ${latent_dim}\nhidden: ['2048']\ngated: no\n",
    "odd": "_target_: vae.model.backbones.Dense\nlatent_dim: ${latent_dim}\nhidden: []\ngated: false\n",
    "short": "_target_: vae.model.backbones.Dense\nlatent_dim: ${latent_dim}\nhidden: [8]\n",
    "extra": "_target_: vae.model.backbones.Dense\nlatent_dim: 2\nhidden: [8]\ngated: false\ngatde: true\n",
    "foreign": "_target_: collections.Counter\ndepth: many\n",
}


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("wide", None),
        ("foreign", None),
        ("odd", "backbone.hidden=[]: must be a list of 1 to 100 integers from 1 to 1000000"),
        ("short", "backbone.gated: cannot be left out; give it as backbone.gated=…"),
        ("extra", "backbone.gatde: no such key; did you mean backbone.gated?"),
    ],
)
def test_a_yaml_of_one_s_own_has_the_ranges_of_its_class(tmp_path, name, line):
    (tmp_path / "backbone").mkdir()
    (tmp_path / "backbone" / f"{name}.yaml").write_text(OWN[name])
    make = functools.partial(composed, f"hydra.searchpath=[file://{tmp_path}]", f"backbone={name}")
    if line:
        assert refusal(make) == line
        return
    cfg = make()
    check(cfg)
    if name == "wide":
        assert plain(cfg)["backbone"]["hidden"] == [2048] and plain(cfg)["backbone"]["gated"] is False


# This machine ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "gpus", "line"),
    [
        (
            "data=images data.root={}/nowhere",
            0,
            "data.root={}/nowhere: must be a folder of images, but there is no such",
        ),
        ("data=images data.root={}/empty", 0, "data.root={}/empty: must be a folder of images"),
        ("data=images data.root={}/file", 0, "data.root={}/file: must be a folder, but it is a file"),
        ("data.root={}/file", 0, "data.root={}/file: must be a folder, but it is a file"),
        (
            "data.root='~nobody_of_this_name/x'",
            0,
            "data.root=~nobody_of_this_name/x: must be a path that can be looked at (there",
        ),
        (
            f"data.root={300 * 'd'}",
            0,
            f"data.root={300 * 'd'}: must be a path that can be looked at (File name too long)",
        ),
        ("data=factors data.file={}/nowhere.npz", 0, "data.file={}/nowhere.npz: must be an .npz file"),
        ("trainer.accelerator=gpu", 0, "trainer.accelerator=gpu: must be auto or cpu, as there is no GPU"),
        ("trainer.accelerator=mps", 2, "trainer.accelerator=mps: must be auto or cpu"),
        ("trainer.devices=[1]", 0, "trainer.devices=[1]: must be a number of processes on a CPU"),
        (
            "trainer.accelerator=cpu trainer.devices=[1]",
            2,
            "trainer.devices=[1]: must be a number of processes on a CPU",
        ),
        ("trainer.devices=[7]", 2, "trainer.devices=[7]: must be indices from 0 to 1"),
        ("trainer=ddp trainer.devices=3", 2, "trainer.devices=3: must be at most 2"),
        ("trainer.precision=16-mixed", 0, "trainer.precision=16-mixed: must be 32-true or 64-true on a CPU"),
    ],
)
def test_what_this_machine_does_not_have_is_refused(tmp_path, monkeypatch, overrides, gpus, line):
    monkeypatch.setattr("sys.platform", "linux")
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    cfg = composed(*overrides.format(tmp_path).split())
    check(cfg)
    with pytest.raises(ValueError) as caught:
        check_machine(cfg, lambda: [str(index) for index in range(gpus)])
    assert str(caught.value).startswith(line.format(tmp_path))


@pytest.mark.parametrize(
    ("overrides", "gpus"),
    [
        ("trainer.devices=[1] trainer.precision=16-mixed", 2),
        ("trainer=ddp", 0),
        ("trainer=ddp trainer.devices=2 trainer.accelerator=cpu", 0),
        ("trainer=ddp trainer.devices=[0,2] trainer.accelerator=cuda", 3),
        ("data=strokes data.root={}/not_yet_there", 0),
        ("data=images data.root={}", 0),
    ],
)
def test_what_this_machine_has_is_accepted(tmp_path, overrides, gpus):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.png").touch()
    cfg = composed(*overrides.format(tmp_path).split())
    check(cfg)
    check_machine(cfg, lambda: [str(index) for index in range(gpus)])


def test_no_gpu_is_looked_for_where_none_is_asked_for(tmp_path):
    def gpus() -> list[str]:
        raise AssertionError("takes a while")

    check_machine(composed_once(), gpus)


# Plain form -----------------------------------------------------------------------------------------------------------


def kinds(content: object) -> set[type]:
    children = content.values() if isinstance(content, dict) else content if isinstance(content, list) else ()
    return {type(content)}.union(*map(kinds, children))


def test_plain_is_resolved_and_made_of_plain_types():
    content = plain(composed("latent_dim=3", "prior=correlated", "data.limit=5"))
    assert kinds(content) <= {dict, list, str, int, float, bool, type(None)}
    assert content["prior"] == {"_target_": "vae.model.priors.Correlated", "latent_dim": 3, "covariance": None}
    assert content["trainer"]["max_epochs"] == content["epochs"] == 30


def test_flatten_joins_the_keys_and_keeps_lists():
    assert flatten({"a": 1, "b": {"c": [1, {"d": 2}], "e": {"f": None}}, "g": {}}) == {
        "a": 1, "b.c": [1, {"d": 2}], "b.e.f": None,
    }  # fmt: skip


def test_a_fingerprint_is_that_of_the_content():
    assert fingerprint({"a": 1, "b": {"c": 2.5, "d": [1, 2]}}) == fingerprint({"b": {"d": [1, 2], "c": 2.5}, "a": 1})
    assert fingerprint({"a": 1}) == "f9d86028c6e0d64e"  # SHA-256 of {"a": 1}: the same in every process and version
    variants = [[], ["seed=1"], ["beta=1.5"], ["prior=correlated"], ["data.limit=5"], ["backbone.hidden=[512,255]"]]
    assert len({fingerprint(plain(composed(*overrides))) for overrides in variants}) == len(variants)


SAME = [
    ("beta=1", "beta=1.0"),
    (
        "latent_dim=4",
        "latent_dim='4'",
        "latent_dim=${oc.env:FOUR}",
        "latent_dim=${data.limit} data.limit=${oc.env:FOUR}",
    ),
    ("beta=4", "beta=${oc.env:FOUR}", "beta=4e0"),
    ("backbone.hidden=[4,4]", "backbone.hidden=['4','${oc.env:FOUR}']"),
    ("conditional=true", "conditional=yes", "conditional='on'", "conditional=1"),
    ("optimizer.betas=[0.0,0.5]", "optimizer.betas=[0,'0.5']"),
    ("data.name=4", "data.name='4'", "data.name=${oc.env:FOUR}"),
    ("data.digests.train-images-idx3-ubyte=4", "data.digests.train-images-idx3-ubyte='4'"),
    ("objective.capacity=4", "objective.capacity=4.0", "objective.capacity='4'"),
    ("prior=mixture prior._target_=collections.Counter prior.components=4", None),
]


@pytest.mark.parametrize("ways", SAME, ids=[ways[0] for ways in SAME])
def test_a_value_is_the_same_in_whatever_type_it_was_given(monkeypatch, ways):
    monkeypatch.setenv("FOUR", "4")
    first, *others = (way or ways[0].replace("=4", "='4'") for way in ways)
    expected = composed(*first.split())
    check(expected)
    for way in others:
        cfg = composed(*way.split())
        before = OmegaConf.to_yaml(cfg)
        check(cfg)
        assert OmegaConf.to_yaml(cfg) == before  # where ${latent_dim} stands, that remains
        found = plain(cfg) | ({"data": plain(expected)["data"]} if "data.limit" in way else {})
        assert repr(found) == repr(plain(expected)) and fingerprint(found) == fingerprint(plain(expected))


# Without torch --------------------------------------------------------------------------------------------------------


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Python in an environment where importing torch or Lightning is an error."""
    for name in ("torch", "pytorch_lightning"):
        (folder / f"{name}.py").write_text(f"raise AssertionError('{name} was imported')")
    environment = os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}
    return subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True, timeout=60
    )


def test_the_command_line_imports_no_torch(tmp_path):
    result = run(
        tmp_path, "-c", "import vae, vae.entry.cli, vae.settings.config, vae.settings.errors, vae.runs.record, train"
    )
    assert result.returncode == 0, result.stderr
    assert "torch was imported" in run(tmp_path, "-c", "import vae.model.vae").stderr


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["latent_dim=0"], "error: latent_dim=0: must be an integer from 1 to 1000000"),
        (
            ["prior=isotopic"],
            "error: prior=isotopic: no such choice; choose one of correlated, flow, isotropic, learned, mixture, vamp",
        ),
        (["beta=x"], "error: beta=x: must be a number from 0 to 1e+30"),
    ],
)
def test_a_refused_run_is_one_line_and_leaves_nothing(tmp_path, overrides, line):
    result = run(tmp_path, str(ROOT / "train.py"), *overrides)
    assert (result.returncode, result.stdout, result.stderr) == (1, "", f"{line}\n")
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize("objective", ["iwae", "dreg", "mmd", "autoencoder"])
def test_a_beta_that_was_typed_is_refused_where_the_loss_has_none(objective):
    cfg = composed_once(f"objective={objective}").copy()
    check(cfg, [f"objective={objective}", "seed=1"])
    for typed in ("beta=1", "++beta=1.0"):  # it would say what does not hold
        with pytest.raises(ValueError, match=r"^beta=1: must be left out, because objective=\w+ has no β$"):
            check(cfg, [typed])
    check(composed_once("objective=tc").copy(), ["beta=1"])
