"""Names that most rooms use."""

TERMS = ("total", "recon", "kl")  # of −ELBO in nats, total = recon + kl; of an autoencoder there is recon alone

Shape = tuple[int, int, int]  # of an image: (channels, height, width)
