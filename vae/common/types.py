"""Names that most rooms use."""

TERMS = ("total", "recon", "kl")  # of −ELBO in nats, total = recon + kl; of an autoencoder there is recon alone

KL_OF_LEVEL = "kl_level_{}"  # that of a level, counted from the top, which is 1

WEIGHTS = "weights.ckpt"  # in the folder of a run that has no checkpoints, such as an example in the repository

Shape = tuple[int, int, int]  # of an image: (channels, height, width)
