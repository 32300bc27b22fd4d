import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import screenshots
from PIL import Image

from vae.training.run import train_run


def test_a_folder_without_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="must hold TensorBoard event files"):
        screenshots.main([str(tmp_path)])


@pytest.mark.slow
def test_the_tabs_show_something(tmp_path: Path, compose: Callable[..., dict[str, Any]], image_folder: Path) -> None:
    if not any(map(shutil.which, screenshots.BROWSERS)):
        pytest.skip("no Chromium is installed")
    small = ["data=images", f"data.root={image_folder}", "data.channels=1", "epochs=1", "latent_dim=3"]
    train_run(compose(*small), tmp_path / "run")
    screenshots.main([str(tmp_path), "--out", str(tmp_path / "shots"), "--tabs", "scalars", "images", "mesh"])
    for tab in ("scalars", "images", "mesh"):
        with Image.open(tmp_path / "shots" / f"{tab}.png") as shot:
            assert shot.size == (1500, 1100)
            assert len(shot.convert("RGB").getcolors(1 << 24)) > 50  # a page that failed to load is one colour


def test_a_picture_that_was_not_taken_replaces_none(tmp_path: Path) -> None:
    (tmp_path / "tab.png").write_bytes(b"what was there")
    with pytest.raises(RuntimeError, match=r"^tab\.png: no picture could be taken"):
        screenshots.photograph("true", "about:blank", tmp_path / "tab.png")
    assert [path.name for path in tmp_path.iterdir()] == ["tab.png"]
    assert (tmp_path / "tab.png").read_bytes() == b"what was there"
