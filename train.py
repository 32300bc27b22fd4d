"""Train a variational autoencoder: `python train.py latent_dim=3 prior=correlated`; see `python train.py --help`."""

from vae.common import signals

if __name__ == "__main__":
    signals.listen()  # before all that takes time to import, which would break off halfway

import hydra
from omegaconf import DictConfig

from vae.entry import cli


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def train(cfg: DictConfig) -> float:
    """Train one run and return what a sweep minimises: the validation total in nats per image."""
    return cli.train_job(cfg)


if __name__ == "__main__":
    cli.main(train)
