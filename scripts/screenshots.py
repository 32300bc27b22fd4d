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

from tensorboard.program import TensorBoard

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
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        sys.exit(f"error: needs one of the browsers {', '.join(BROWSERS)}, but none is installed")

    board = TensorBoard()
    board.configure(argv=["", "--logdir", str(options.logdir), "--port", "0"])
    url = board.launch()
    time.sleep(LOADING)
    options.out.mkdir(parents=True, exist_ok=True)
    for tab in options.tabs:
        file = options.out / f"{tab}.png"
        photograph(browser, f"{url}#{tab}", file)
        print(file)


def photograph(browser: str, url: str, file: Path, width: int = 1500, height: int = 1100) -> None:
    """Load a page in a fresh browser without a screen and write what it shows as a PNG."""
    with tempfile.TemporaryDirectory() as profile:
        options = [
            *("--headless", "--no-sandbox", "--hide-scrollbars", "--no-first-run", "--disable-background-networking"),
            # The projector and the mesh need WebGL, which this one draws without a graphics card.
            *("--use-angle=swiftshader", "--enable-unsafe-swiftshader"),
            *(f"--user-data-dir={profile}", f"--window-size={width},{height}"),
            "--virtual-time-budget=25000",  # milliseconds of the page's own clock: until all has arrived
            f"--screenshot={file.resolve()}",
        ]
        subprocess.run([browser, *options, url], check=True, capture_output=True, timeout=120)


if __name__ == "__main__":
    main()
