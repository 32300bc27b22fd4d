"""The Markdown that Sphinx reads: the project's own pages, with links among each other and parts that move."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from website.live import markup
from website.places import ROOT
from website.reference import dotted, reference

# Pages that lie elsewhere or are called otherwise than in docs/.
ELSEWHERE = {
    "README.md": "start",
    "CONTRIBUTING.md": "contributing",
    "CHANGELOG.md": "changes",
    "outputs/examples/README.md": "gallery",
    "docs/decisions/README.md": "decisions/index",
}
SITE = "outputs/site/index.html"  # what README links to
NOTEBOOKS = "docs/notebooks/*.ipynb"
# What hangs below a page in the navigation: captions, and pages or patterns.
TREES: Mapping[str, Mapping[str, list[str]]] = {
    "index": {
        "Learn": [
            "theory",
            "Gallery <gallery>",
            "notebooks/latent_2d",
            "notebooks/latent_3d",
            "notebooks/latent_correlated",
        ],
        "Use": ["Start <start>", "choices", "runs", "evaluating", "small", "launchers", "speed", "reliability"],
        "Look inside": ["architecture", "decisions/index", "api/index", "contributing", "changes"],
    },
    "decisions/index": {"": ["*"]},
}
LINK = re.compile(r"\[([^\]]*)\]\(([^()\s]+)\)")  # its text and where it leads
LIVE = re.compile(r"<!-- live: (\w+)((?: \w+)*) -->\n(.*?)<!-- end -->\n", re.DOTALL)
PICTURES = (".png", ".gif")
MOST_BYTES = 100_000  # of a file that the site holds as it is, which trained weights are not
TAKEN = re.compile(r"<!-- from (\S+): (.+?) -->\n")


def stage(folder: Path) -> None:
    """Write all pages into an empty folder that lies where docs/ does, so that ways to pictures stay right."""
    for source, name in pages().items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.endswith(".ipynb"):
            shutil.copyfile(ROOT / source, target)
        else:
            target.write_text(page(source, name.removesuffix(".md")), encoding="utf-8")
    for name, text in reference():
        target = folder / "api" / f"{name}.md"
        target.parent.mkdir(exist_ok=True)
        target.write_text(text, encoding="utf-8")


def pages() -> dict[str, str]:
    """Each page's file in the project, and its file below the folder of all pages."""
    found = {source: f"{name}.md" for source, name in ELSEWHERE.items()}
    for path in sorted([*(ROOT / "docs").rglob("*.md"), *ROOT.glob(NOTEBOOKS)]):
        source = path.relative_to(ROOT).as_posix()
        found.setdefault(source, source.removeprefix("docs/"))
    return found


def page(source: str, name: str) -> str:
    """A page as Sphinx reads it."""
    text = (ROOT / source).read_text(encoding="utf-8")
    text = TAKEN.sub(lambda found: section(found[1], found[2], source), text)
    text = LINK.sub(lambda found: link(found[1], found[2], source, name), text)
    text = LIVE.sub(lambda found: live(found[1], found[2].split(), found[3]), text)
    head = "---\nhide-toc: true\n---\n" if name == "index" else ""  # its parts take the room
    return head + text + "".join(tree(caption, entries) for caption, entries in TREES.get(name, {}).items())


def section(source: str, heading: str, into: str) -> str:
    """What another page has below a heading, with links that are right in this page."""
    here = (ROOT / into).parent
    file = here / source
    lines = iter(file.read_text(encoding="utf-8").splitlines(keepends=True))
    level = next(line for line in lines if line.startswith("#") and line.strip("# \n") == heading).split()[0]
    body = "".join(_until_heading(lines, len(level)))

    def moved(found: re.Match[str]) -> str:
        if "://" in found[2]:
            return found[0]
        path, mark, anchor = found[2].partition("#")
        return f"[{found[1]}]({os.path.relpath(file.parent / path if path else file, here)}{mark}{anchor})"

    return LINK.sub(moved, body)


def _until_heading(lines: Iterator[str], level: int) -> Iterator[str]:
    for line in lines:
        if re.match(rf"#{{1,{level}}} ", line):
            return
        yield line


def link(said: str, target: str, source: str, name: str) -> str:
    """A link of a page, to where it leads in the site: to another page, a module's reference, or a file."""
    path, mark, anchor = target.partition("#")
    if "://" in target or not path:
        return f"[{said}]({target})"
    file = ((ROOT / source).parent / path).resolve()
    known, where = pages(), file.relative_to(ROOT).as_posix()
    if where in known or where == SITE:
        to = known.get(where, "index.md")
    elif where.startswith("vae/") and file.suffix == ".py":
        to, mark, anchor = f"api/{dotted(file.parent)}.md", "#", slug(dotted(file))
    elif file.suffix in PICTURES:
        to = f"../{where}"
    elif file.stat().st_size > MOST_BYTES:
        return said
    else:
        return f"[{said}](path:{os.path.relpath(f'../{where}', Path(name).parent)})"  # as it is
    return f"[{said}]({os.path.relpath(to, Path(name).parent)}{mark}{anchor})"


def slug(heading: str) -> str:
    """The anchor of a heading, as GitHub and MyST make it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def live(part: str, runs: list[str], still: str) -> str:
    """A part that moves, and what stands for it where there are no scripts."""
    lines = [line for line in markup(part, runs).splitlines() if line.strip()]  # an empty one would end the HTML
    return "\n".join([*lines, '<div class="still">', "", still.strip(), "", "</div>", ""])


def tree(caption: str, entries: list[str]) -> str:
    """The navigation below a page."""
    options = [":hidden:", *([f":caption: {caption}"] if caption else []), *([":glob:"] if "*" in entries else [])]
    return "\n```{toctree}\n" + "\n".join([*options, "", *entries]) + "\n```\n"
