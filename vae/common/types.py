"""Names of types that most rooms speak of."""

Shape = tuple[int, int, int]  # of an image: (channels, height, width)
