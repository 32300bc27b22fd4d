from collections.abc import Callable

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import AxesImage


@pytest.fixture
def check() -> Callable[[Figure], Figure]:
    """Draws a figure and makes sure that nothing is cut off and that most of it is used."""

    def draw(figure: Figure) -> Figure:
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        box, (width, height) = figure.get_tightbbox(canvas.get_renderer()), figure.get_size_inches()
        pixel = 1 / figure.dpi  # by which old Matplotlibs measure texts otherwise
        assert min(box.x0, box.y0, width - box.x1, height - box.y1) >= -pixel, f"{box} in {width}×{height}"
        assert box.width * box.height > 0.8 * width * height
        return figure

    return draw


@pytest.fixture
def shown() -> Callable[[AxesImage], np.ndarray]:
    """The pixels (3, height, width) that are drawn, in [0, 1] and exact to a byte."""
    return lambda image: np.moveaxis(np.asarray(image.get_array())[..., :3] / 255, -1, 0)
