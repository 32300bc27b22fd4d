"""What moves in the site: its scripts and style, the runs that it shows, and the film as one picture."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from PIL import Image, ImageSequence

from vae.entry import interactive
from vae.explorer.page import describe, panel, panel_style, program, switch
from website.places import EXAMPLES, PARTS

RUNS = ("autoencoder", "tutorial_2d", "tutorial_3d", "tutorial_correlated")
FILM = EXAMPLES / "tutorial_correlated" / "evolution.gif"
SCALE = 10 / 16  # the explorer's 1rem is 10 pixels, the site's 16
AVIF: dict[str, Any] = {"quality": 50, "speed": 8}


def write(folder: Path) -> None:
    """Write everything that the parts take into a folder."""
    folder.mkdir(parents=True)
    here = Path(__file__).parent
    for source in (here / "live.js", *PARTS.glob("*.js")):
        (folder / source.name).write_text(source.read_text(encoding="utf-8"), encoding="utf-8")
    (folder / "live.css").write_text((here / "live.css").read_text(encoding="utf-8") + scoped(), encoding="utf-8")
    (folder / "explorer.js").write_text(program(), encoding="utf-8")
    for name in RUNS:
        write_run(folder, name, described(EXAMPLES / name))
    for i, run in enumerate(of_beta()):
        write_run(folder, f"beta_{i}", decoder_of(described(run)) | {"beta": beta(run), "metrics": metrics(run)})
    strip(FILM).save(folder / "film.avif", **AVIF)


def write_run(folder: Path, name: str, run: dict[str, Any]) -> None:
    """A run as a script, because a page that was opened by a double click may read nothing else."""
    text = json.dumps(run, ensure_ascii=False, separators=(",", ":"))
    (folder / f"{name}.js").write_text(f"live.run({json.dumps(name)},{text});\n", encoding="utf-8")


def described(run: Path) -> dict[str, Any]:
    """What the explorer knows of the kept weights of a run."""
    return describe(interactive.scene(run), run.name)


def decoder_of(run: dict[str, Any]) -> dict[str, Any]:
    """The same without what only images need."""
    networks = {key: value for key, value in run["networks"].items() if key not in ("encoder", "posterior")}
    return {key: value for key, value in run.items() if key != "images"} | {"networks": networks}


def of_beta() -> list[Path]:
    """The kept runs of the sweep over β, the smallest first."""
    return sorted((EXAMPLES / "beta").glob("beta=*"), key=lambda run: float(beta(run)))


def beta(run: Path) -> str:
    """The β in a run's name."""
    return run.name.partition("=")[2]


def metrics(run: Path) -> dict[str, Any]:
    """What was measured of a kept run of the sweep over β, as its table says."""
    table = (EXAMPLES / "beta" / "results.md").read_text(encoding="utf-8")
    head, *rows = ([cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if "|" in line)
    row = next(dict(zip(head, cells, strict=True)) for cells in rows if cells[0] == beta(run))
    return {f"test/{name}": float(row[name]) for name in ("total", "recon", "kl")}


def strip(film: Path) -> Image.Image:
    """The frames of a film below each other."""
    with Image.open(film) as source:
        frames = [frame.convert("RGB") for frame in ImageSequence.Iterator(source)]
    width, height = frames[0].size
    picture = Image.new("RGB", (width, height * len(frames)))
    for i, frame in enumerate(frames):
        picture.paste(frame, (0, i * height))
    return picture


def scoped() -> str:
    """The explorer's style, for explorers alone, and in the site's units."""
    style = re.sub(r"([\d.]+)rem\b", lambda found: f"{float(found[1]) * SCALE:g}rem", panel_style())
    return f"\n.explorer {{\n{style}}}\n"


def markup(part: str, runs: list[str]) -> str:
    """A part's HTML, at its full size before it is alive."""
    with Image.open(FILM) as film:
        epochs = film.n_frames - 1  # type: ignore[attr-defined]
    betas = of_beta()
    names = runs or [f"beta_{i}" for i in range(len(betas))]
    content = {
        "switch": f'<div class="explorer">{switch()}</div>\n' if len(runs) > 1 else "",
        "several": " several" if len(runs) > 1 else "",
        "panels": panel() * len(runs),
        "epochs": str(epochs),
        "most": str(len(betas) - 1),
    }
    html = (PARTS / f"{part}.html").read_text(encoding="utf-8")
    inside = re.sub(r"{{ (\w+) }}", lambda found: content[found[1]], html)
    many = " many" if any(latent_dim(EXAMPLES / run) > 2 for run in runs) else ""
    return f'<div class="live{many}" data-part="{part}" data-runs="{" ".join(names)}">\n{inside}</div>'


def latent_dim(run: Path) -> int:
    """Dimensions of a kept run, by its configuration."""
    return int(OmegaConf.load(run / "config.yaml").latent_dim)
