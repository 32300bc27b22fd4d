"""Short runs that together take every choice of every group, each as words of a command line."""

SMALL = "data=strokes data.limit=300 data.batch_size=50 epochs=2 figures=none trainer.accelerator=cpu"
FOLDER = "data=images data.root=images data.channels=1 data.batch_size=8"
FEW = "evaluate=full evaluate.images=20 evaluate.samples=20"
RUNS = {
    "defaults": "backbone=dense prior=isotropic posterior=diagonal likelihood=bernoulli objective=elbo optimizer=adam "
    "scheduler=constant trainer=default evaluate=none",
    "seed": "seed=3 latent_dim=1",
    "gated": "backbone.gated=true backbone.hidden=[64,32] latent_dim=10 beta=0.5 data.val_fraction=0.3",
    "conv": "backbone=conv backbone.channels=[8,16,16] backbone.hidden=32 prior=correlated posterior=full",
    "resnet": "backbone=resnet backbone.channels=[8,16] backbone.depth=1 backbone.groups=4 backbone.attention=[14]",
    "resnet_plain": "backbone=resnet backbone.channels=[8,8,8] backbone.depth=1 backbone.groups=null conditional=true",
    "levels": "backbone.hidden=[64,32] backbone.gated=true backbone.below=[8,5] objective.free_bits=0.5 "
    "objective.free_bits_per=level objective.annealing=linear objective.warmup=1 objective.balance=true "
    "figures=default figures.only=[redrawn,upper,temperature,levels]",
    "levels_maps": "backbone=resnet backbone.channels=[8,8] backbone.depth=1 backbone.gated=true backbone.groups=null "
    "backbone.below=[[14,3],[28,1]] conditional=true prior=correlated posterior=tied ema=0.9 evaluate=full "
    "evaluate.images=10 evaluate.samples=10 evaluate.metrics=[likelihood,aggregate,structure,reconstruction]",
    "codebook": "posterior=codebook posterior.codes=16 backbone=conv backbone.channels=[8,8] prior=uniform",
    "codebook_learned": "posterior=codebook posterior.codes=16 posterior.decay=null posterior.gradient=rotation "
    "backbone=resnet backbone.channels=[8,8,8] backbone.depth=1 conditional=true prior=autoregressive prior.width=16 "
    "figures=default figures.only=[codes,codebook,usage,samples,interpolation] ema=0.9 evaluate=full "
    "evaluate.metrics=[structure,reconstruction]",
    "residual_codebook": "posterior=residual_codebook posterior.codes=8 posterior.places=5 prior=autoregressive "
    "prior.layers=1 prior.width=8",
    "fsq": "posterior=fsq posterior.levels=[5,4] prior=autoregressive prior.layers=0 prior.width=8 prior.heads=1",
    "gumbel": "posterior=gumbel backbone=conv beta=0.5",
    "vqvae_mnist": "experiment=vqvae_mnist prior.width=16 epochs=2",
    "vqvae_cifar10": "experiment=vqvae_cifar10 data=cifar10 backbone.channels=[8,8,8] backbone.depth=1 prior.width=16 "
    "posterior.codes=16 data.limit=60 epochs=2",
    "tied": "prior=correlated posterior=tied prior.covariance=[[2.0,-0.7],[-0.7,1.5]]",
    "full": "prior=correlated posterior=full latent_dim=3",
    "learned": "prior=learned posterior=tied latent_dim=3",
    "mixture": "prior=mixture",
    "mixture_diagonal": "prior=mixture prior.components=4 prior.covariance=diagonal posterior=full latent_dim=3",
    "vamp": "prior=vamp prior.components=20",
    "vamp_random": "prior=vamp prior.components=5 prior.init=random backbone=conv conditional=true",
    "flow": "prior=flow posterior=full",
    "flow_maf": "prior=flow prior.kind=maf prior.layers=2 prior.hidden=[16] latent_dim=3",
    "gaussian": "likelihood=gaussian likelihood.sigma=learned backbone=conv",
    "gaussian_optimal": "likelihood=gaussian likelihood.sigma=optimal",
    "continuous_bernoulli": "likelihood=continuous_bernoulli",
    "discretized_logistic": "likelihood=discretized_logistic",
    "logistic_mixture": f"{FOLDER} data.channels=3 likelihood=logistic_mixture likelihood.components=3 backbone=conv",
    "linear": "objective.annealing=linear objective.warmup=1.5 beta=2",
    "cosine": "objective.annealing=cosine objective.warmup=2 scheduler=cosine scheduler.warmup=0.25",
    "cyclical": "objective.annealing=cyclical objective.cycles=2 scheduler=one_cycle",
    "free_bits": "objective.free_bits=0.5 latent_dim=3 scheduler=stages",
    "free_bits_total": "objective.free_bits=2 objective.free_bits_per=total prior=correlated",
    "capacity": "objective.capacity=5 objective.annealing=linear objective.warmup=2 beta=10",
    "iwae": "objective=iwae",
    "dreg": "objective=dreg objective.samples=3 prior=mixture prior.components=3",
    "tc": "objective=tc beta=4 latent_dim=3",
    "mmd": "objective=mmd objective.alpha=0.5 prior=correlated conditional=true",
    "dip": "objective=dip",
    "dip_means": "objective=dip objective.kind=1 posterior=full latent_dim=3 beta=2",
    "autoencoder": "objective=autoencoder",
    "renyi": "objective=renyi objective.alpha=1.5 prior=correlated",
    "wasserstein": "objective=wasserstein prior=mixture prior.components=3",
    "sinkhorn": "objective=wasserstein objective.kind=sinkhorn objective.epsilon=0.3",
    "rae": "objective=rae backbone=conv prior.components=3 conditional=true",
    "rae_learned": "objective=rae prior=learned ema=0.9",
    "factor": "objective=factor objective.critic.hidden=[32,32] latent_dim=3 prior=correlated posterior=full",
    "wae_gan": "objective=wae_gan objective.critic.hidden=[32] objective.critic.updates=2 prior=vamp "
    "prior.components=5",
    "vae_gan": "objective=vae_gan objective.critic.channels=[4,8] backbone=conv conditional=true report=best",
    "distillation": "objective=distillation objective.teacher=runs/defaults backbone.hidden=[64,32] beta=2",
    "pruned": "parent=runs/conv backbone=conv backbone.channels=[5,9,12] backbone.hidden=20 prior=correlated "
    "posterior=full",
    "adamw": "optimizer=adamw optimizer.weight_decay=0.1 optimizer.lr=3e-3 data.binarize=threshold",
    "clipped": "trainer.gradient_clip_val=5 optimizer.betas=[0.8,0.99] optimizer.fused=false",
    "conditional": "conditional=true backbone=conv prior=correlated posterior=tied",
    "double": "trainer.precision=64-true prior=learned posterior=full trainer.gradient_clip_val=20",
    "last": "report=last optimizer.lr=0.03 epochs=4",
    "averaged": "ema=0.95 likelihood=gaussian likelihood.sigma=optimal prior=learned",
    "mnist": "data=mnist",
    "auto": "data=auto data.binarize=dynamic",
    "fashion_mnist": "data=fashion_mnist",
    "kmnist": "data=kmnist",
    "images": f"{FOLDER} data.channels=3 data.size=[9,14] likelihood=gaussian",
    "factors": "data=factors data.file=factors.npz",
    "arrays": "data=arrays data.file=factors.npz",
    "cifar10": "data=cifar10 data.flip=true likelihood=discretized_logistic backbone=conv",
    "celeba": "data=celeba data.crop=10 data.size=[8,9] likelihood=gaussian",
    "tutorial_2d": "experiment=tutorial_2d beta=4",
    "tutorial_3d": "experiment=tutorial_3d backbone=conv",
    "tutorial_correlated": "experiment=tutorial_correlated",
    "iwae_paper": f"experiment=iwae_paper {FEW}",
    "vamp_paper": f"experiment=vamp_paper objective.warmup=1 {FEW}",
    "two_level_mnist": f"experiment=two_level_mnist objective.warmup=1 {FEW}",
    "ladder_mnist": f"experiment=ladder_mnist backbone.channels=[8,8,8] backbone.depth=1 backbone.below=[[7,2],[14,1]] "
    f"objective.warmup=1 {FEW}",
    "ladder_cifar10": f"experiment=ladder_cifar10 data=cifar10 backbone.channels=[8,8,8] backbone.depth=1 "
    f"backbone.below=[[8,2]] objective.warmup=1 data.limit=60 {FEW} evaluate.images=5 evaluate.samples=5",
    "resnet_celeba": "experiment=resnet_celeba data=celeba data.crop=10 data.size=[8,8] backbone.channels=[8,8] "
    "backbone.attention=[4]",
    "figures": "figures=default figures.every_n_epochs=2",
    "figures_conditional": f"{FOLDER} figures=default figures.grid=square figures.walk=conditional latent_dim=3 "
    "prior=correlated conditional=true figures.only=[manifold,traversal,samples]",
    "evaluated": f"{FEW} evaluate.metrics=[likelihood,aggregate,geometry,structure,reconstruction,disentanglement]",
    "evaluated_by_ais": f"{FOLDER} {FEW} evaluate.method=ais evaluate.metrics=[likelihood,gap,samples] latent_dim=3",
    "processes": "trainer=ddp trainer.devices=2",
    "resumed": "scheduler=cosine data.binarize=dynamic prior=vamp prior.components=5",
}
# Not of a step, or of other runs.
ELSEWHERE = ("data=", "trainer.devices=", "evaluate=", "figures=", "experiment=", "runs/")
OF_A_STEP = [name for name, words in RUNS.items() if not any(word in words for word in ELSEWHERE)]


def overrides(name: str, *more: str) -> list[str]:
    """The command line of a run; of a key that is given twice, the last value."""
    chosen = dict(word.split("=", 1) for word in [*SMALL.split(), *RUNS[name].split(), *more])
    return [f"{key}={value}" for key, value in chosen.items()]
