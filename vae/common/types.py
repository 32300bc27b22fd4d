"""Types that most rooms use."""

Shape = tuple[int, int, int]  # of an image: (channels, height, width)
