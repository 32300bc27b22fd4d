"""What the site asks of Sphinx beyond what it has: formulas as MathML, small pictures, docstrings in plain words."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from PIL import Image, ImageSequence
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms.images import BaseImageConverter
from sphinx.util._pathlib import _StrPath
from sphinx.writers.html5 import HTML5Translator

from website.live import AVIF
from website.sources import PICTURES

BRACE = re.compile(r"<munder>((?:(?!<munder>).)*?)<mo>&#x23DF;</mo></munder>")
NAME = re.compile(r"(<mi>(?:log|exp|min|max|arg)</mi>)(?=<m[insuf])")  # before a letter, not before a bracket
CODE = re.compile(r"(`[^`]+`)")
MARKS = re.compile(r"([\\*|_`])")  # that would mean something else to Sphinx


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.add_html_math_renderer("mathml", (inline, None), (block, None))
    app.add_post_transform(Smaller)
    app.connect("autodoc-process-docstring", plain)
    app.connect("html-page-context", lighter, priority=900)  # after the theme's
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def inline(self: HTML5Translator, node: nodes.math) -> None:
    """A formula within a line."""
    self.body.append(mathml(node.astext(), "inline"))
    raise nodes.SkipNode


def block(self: HTML5Translator, node: nodes.math_block) -> None:
    """A formula of its own, which scrolls by itself where it is wider than the page."""
    self.body.append(f'<div class="math" tabindex="0">{mathml(node.astext(), "block")}</div>\n')
    raise nodes.SkipNode


def mathml(latex: str, display: str) -> str:
    """A formula that looks the same without a font for mathematics: braces are borders, and names stand apart."""
    text = BRACE.sub(r'<mrow class="braced">\1</mrow>', convert(latex, display=display))
    if ">&<" in text or "\\" in text:
        raise ValueError(f"a formula has what the site cannot draw: {latex}")
    return NAME.sub(r'\1<mspace width="0.17em"></mspace>', text)


class Smaller(BaseImageConverter):
    """A picture as WebP without loss and a film as AVIF, in fewer bytes; with its size, so that nothing moves later."""

    default_priority = 190  # before pictures are collected for the builder

    def match(self, node: nodes.image) -> bool:
        """Whether it can be made smaller."""
        return Path(node["uri"]).suffix in PICTURES

    def handle(self, node: nodes.image) -> None:
        """Put the smaller file in its place."""
        source = Path(self.app.srcdir) / node["uri"]
        is_film = source.suffix == ".gif"
        target = Path(self.imagedir) / f"{source.resolve().parent.name}-{source.stem}.{'avif' if is_film else 'webp'}"
        target.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(source) as image:
            node["width"], node["height"] = map(str, image.size)
            if not target.is_file():
                save_film(image, target) if is_film else image.save(target, lossless=True, method=5)
        node["loading"] = "lazy"
        node["candidates"] = {"*": str(target)}
        node["uri"] = str(target)
        self.env.original_image_uri[_StrPath(target)] = str(source)
        self.env.images.add_file(self.env.docname, str(target))


def save_film(film: Image.Image, target: Path) -> None:
    """Write the frames of a film for as long as each was shown."""
    frames = [each.convert("RGB") for each in ImageSequence.Iterator(film)]
    durations = [each.info["duration"] for each in ImageSequence.Iterator(film)]
    frames[0].save(target, save_all=True, append_images=frames[1:], duration=durations, **AVIF)


def lighter(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: object) -> None:
    """Leave out what only notebooks take, and say at what level the navigation's captions are headings."""
    if not page.startswith("notebooks/"):
        context["css_files"] = [file for file in context["css_files"] if "mystnb" not in str(file.filename)]
    tree = context.get("furo_navigation_tree", "")
    context["furo_navigation_tree"] = tree.replace('role="heading"', 'role="heading" aria-level="2"')


def plain(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Let a docstring be read as it is meant: `code` in backticks, no other marks, and what is set in as it stands."""
    found: list[str] = []
    for line in lines:
        if line.startswith("    ") and found and not found[-1].strip():
            found[-1:] = ["", "::", ""]
        elif not line.startswith("    "):
            line = "".join(part if CODE.fullmatch(part) else MARKS.sub(r"\\\1", part) for part in CODE.split(line))
        found.append(line)
    lines[:] = found
