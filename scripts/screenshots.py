"""See what TensorBoard shows of some runs: a screenshot of every tab, taken by Chromium without a screen."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import installed  # noqa: F401

from vae.common.files import relative, replacing
from vae.entry import programs

TABS = ("timeseries", "scalars", "custom_scalars", "images", "histograms", "hparams", "projector", "mesh", "text")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
WITHOUT_GPU = ("--disable-gpu", "--run-all-compositor-stages-before-draw")  # else a canvas is often left out
LOADING = 10.0  # seconds that TensorBoard gets to read the event files before the first picture

EXAMPLES = """
examples:
  python scripts/screenshots.py outputs/runs/2030-01-01 --out screenshots
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Photograph what the command line asks for, and print one path a line."""
    programs.run(shoot, _parser().parse_args(arguments))


def shoot(logdir: Path, out: Path, tabs: Sequence[str]) -> None:
    """Start TensorBoard on a free port, photograph its tabs, stop."""
    if not any(logdir.rglob("events.out.tfevents.*")):
        raise ValueError(f"{logdir}: must hold TensorBoard event files, but there are none")
    chromium = browser()
    if chromium is None:
        raise ValueError(f"needs one of the browsers {', '.join(BROWSERS)}, but none is installed")
    url = serve(logdir)
    for tab in tabs:
        file = out / f"{tab}.png"
        photograph(chromium, f"{url}#{tab}", file)
        print(relative(file))


def browser() -> str | None:
    """The program that takes the pictures, where one is installed."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def serve(logdir: Path) -> str:
    """Start TensorBoard on a free port until this program ends; the address, at which all runs are loaded."""
    from tensorboard.program import TensorBoard  # takes seconds

    board = TensorBoard()
    board.configure(argv=["", "--logdir", str(logdir), "--port", "0"])
    url = board.launch()
    time.sleep(LOADING)
    return url


def photograph(
    browser: str, url: str, file: Path, width: int = 1500, height: int = 1100, scale: int = 1, webgl: bool = True
) -> None:
    """Load a page in a fresh browser without a screen and write what it shows as a PNG, on a transparent ground.

    `webgl`, which the projector and the mesh need, takes minutes for large canvases without a graphics card.
    """
    with tempfile.TemporaryDirectory() as profile, replacing(file) as temporary:
        options = [
            *("--headless", "--no-sandbox", "--hide-scrollbars", "--no-first-run", "--disable-background-networking"),
            *(("--use-angle=swiftshader", "--enable-unsafe-swiftshader") if webgl else WITHOUT_GPU),
            *(f"--user-data-dir={profile}", f"--window-size={width},{height}", f"--force-device-scale-factor={scale}"),
            "--default-background-color=00000000",
            "--virtual-time-budget=25000",  # milliseconds of the page's own clock: until all has arrived
            f"--screenshot={temporary.resolve()}",
        ]
        try:
            subprocess.run([browser, *options, url], check=True, capture_output=True, timeout=120)
        except subprocess.SubprocessError as error:
            raise RuntimeError(f"{file.name}: no picture could be taken, {type(error).__name__}") from error
        if not temporary.stat().st_size:
            raise RuntimeError(f"{file.name}: no picture could be taken, and the browser does not say why")


def _parser() -> argparse.ArgumentParser:
    parser = programs.described("screenshots.py", __doc__, EXAMPLES)
    parser.add_argument("logdir", type=Path, help="folder of one or many runs")
    parser.add_argument("--out", type=Path, default=Path("screenshots"), help="folder of the PNGs (screenshots)")
    parser.add_argument("--tabs", nargs="+", choices=TABS, default=TABS, metavar="TAB", help=f"of {', '.join(TABS)}")
    return parser


if __name__ == "__main__":
    main()
