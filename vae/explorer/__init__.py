"""A page to explore latent spaces by hand: the networks run in the browser itself."""
