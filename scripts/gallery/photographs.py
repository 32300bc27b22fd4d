"""What cannot be drawn but only be photographed: the explorer, TensorBoard and a terminal."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from pathlib import Path

import explore
import screenshots
from PIL import Image

from gallery import common, screen
from gallery.common import Example
from vae.common.files import relative, replacing

IN_USE = """<script>
  let state = 1;  // the same draws every time
  Math.random = () => (state = (state * 16807) % 2147483647) / 2147483647;
  ready.then(() => {
    explorer.panels[0].drawLine({ from: [-2, 0.8], to: [2, 0.4] });
    explorer.panels.forEach((panel) => panel.drawSamples());
    document.querySelector(".take").click();
  });
</script>
"""


def explorer(example: Example, browser: str, folder: Path) -> None:
    """The page with the runs side by side, in use."""
    page = folder / "explorer.html"
    explore.explore([common.TRAINED / name for name in example.of or ()], page, False, None, False)
    with page.open("a", encoding="utf-8") as file:
        file.write(IN_USE)
    screenshots.photograph(browser, page.as_uri(), folder / "explorer.png", 1840, 1200, webgl=False)


def tensorboard(example: Example, browser: str, folder: Path) -> None:
    """The charts and the manifolds of the runs, twice as sharp as on a screen: TensorBoard shrinks pictures roughly."""
    (sweep,) = example.of or ()
    with contextlib.chdir(common.ROOT):  # TensorBoard shows the folder's path as it is given
        url = screenshots.serve(relative(common.TRAINED / sweep))
    for tab, shown, height in (
        ("scalars", "(train|val)/(total|recon|kl)&_smoothingWeight=0", 770),  # where these charts end
        ("images", "latent/manifold", 1160),
    ):
        address = f"{url}#{tab}&tagFilter={shown}"
        screenshots.photograph(browser, address, folder / f"{tab}.png", 1500, height, scale=2)


def terminal(example: Example, browser: str, folder: Path) -> None:
    """The screen while a run trains and when it has ended."""
    transcript = example.trained / "transcript.txt"
    if not transcript.exists():
        train = [sys.executable, str(common.ROOT / "train.py"), *example.arguments]
        status, written = screen.on_terminal(train, common.ROOT)
        if status:
            raise RuntimeError(f"{example.command}: ended with the status {status}\n{written}")
        with replacing(transcript) as temporary:
            temporary.write_text(written, encoding="utf-8", newline="")
    with transcript.open(encoding="utf-8", newline="") as file:
        seen = list(screen.screens(f"$ {example.command}\r\n{file.read()}$ █"))
    training = [text for text in seen if text.endswith(" left")]  # so ends the progress bar
    for name, text in (("running", training[len(training) * 2 // 3]), ("finished", seen[-1])):
        page = folder / f"{name}.html"
        page.write_text(screen.as_page(text, example.command), encoding="utf-8")
        photograph = folder / f"{name}.png"
        height = 100 + 19 * len(text.splitlines())
        screenshots.photograph(browser, page.as_uri(), photograph, 1200, height, scale=2)
        with Image.open(photograph) as image:
            image.crop(image.getchannel("A").getbbox()).save(photograph)


PHOTOGRAPHS: dict[str, Callable[[Example, str, Path], None]] = {
    "explorer": explorer,
    "tensorboard": tensorboard,
    "terminal": terminal,
}
