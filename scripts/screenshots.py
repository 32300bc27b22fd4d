"""See what TensorBoard shows of some runs: a screenshot of every tab, taken by Chromium without a screen.

python scripts/screenshots.py outputs/runs/2026-11-21 --out screenshots
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TABS = ("scalars", "custom_scalars", "images", "hparams", "projector", "mesh", "text")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
LOADING = 10.0  # seconds that TensorBoard gets to read the event files before the first picture


def main(arguments: list[str] | None = None) -> None:
    """Start TensorBoard on a free port, photograph its tabs, stop."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("logdir", type=Path, help="folder of one or many runs")
    parser.add_argument("--out", type=Path, default=Path("screenshots"), help="folder of the PNGs (screenshots)")
    parser.add_argument("--tabs", nargs="+", choices=TABS, default=TABS, metavar="TAB", help=f"of {', '.join(TABS)}")
    options = parser.parse_args(arguments)
    if not any(options.logdir.rglob("events.out.tfevents.*")):
        sys.exit(f"error: {options.logdir}: must hold TensorBoard event files, but there are none")
    chromium = browser()
    if chromium is None:
        sys.exit(f"error: needs one of the browsers {', '.join(BROWSERS)}, but none is installed")

    url = serve(options.logdir)
    options.out.mkdir(parents=True, exist_ok=True)
    for tab in options.tabs:
        file = options.out / f"{tab}.png"
        photograph(chromium, f"{url}#{tab}", file)
        print(file)


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
    with tempfile.TemporaryDirectory() as profile:
        options = [
            *("--headless", "--no-sandbox", "--hide-scrollbars", "--no-first-run", "--disable-background-networking"),
            *(("--use-angle=swiftshader", "--enable-unsafe-swiftshader") if webgl else ("--disable-gpu",)),
            *(f"--user-data-dir={profile}", f"--window-size={width},{height}", f"--force-device-scale-factor={scale}"),
            "--default-background-color=00000000",
            "--virtual-time-budget=25000",  # milliseconds of the page's own clock: until all has arrived
            f"--screenshot={file.resolve()}",
        ]
        try:
            subprocess.run([browser, *options, url], check=True, capture_output=True, timeout=120)
        except subprocess.SubprocessError as error:
            raise RuntimeError(f"{file.name}: no picture could be taken, {type(error).__name__}") from error


if __name__ == "__main__":
    main()
