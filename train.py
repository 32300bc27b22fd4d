"""Train a variational autoencoder: `python train.py latent_dim=3 prior=correlated`; see `python train.py --help`."""

from vae.__main__ import main

if __name__ == "__main__":
    main()
