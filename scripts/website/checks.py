"""What has to hold of a finished site: every link leads somewhere, nothing is asked of elsewhere, and it is small."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

MOST_BYTES = 25_000_000
LOADED = {"img": "src", "script": "src", "link": "href", "iframe": "src", "source": "src", "video": "src"}


class Page(HTMLParser):
    """The anchors and links of a page, and what it loads."""

    def __init__(self, text: str):
        super().__init__()
        self.anchors: set[str] = {""}
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what a tag says."""
        said = dict(attrs)
        self.anchors |= {value for key in ("id", "name") if (value := said.get(key))}
        if tag == "a" and (target := said.get("href")):
            self.links.append(target)
        if tag in LOADED and (target := said.get(LOADED[tag])):
            self.loaded.append(target)


def check(site: Path) -> None:
    """Raise a ValueError that names what does not hold."""
    wrong = [*dead(site), *foreign(site)]
    size = sum(file.stat().st_size for file in site.rglob("*") if file.is_file())
    if size > MOST_BYTES:
        wrong.append(f"{size / 1e6:.1f} MB, but at most {MOST_BYTES / 1e6:.0f} are allowed")
    if wrong:
        raise ValueError(f"{site}: {'; '.join(wrong)}")


def read(site: Path) -> dict[Path, Page]:
    """All pages by their files."""
    return {file: Page(file.read_text(encoding="utf-8")) for file in site.resolve().rglob("*.html")}


def dead(site: Path) -> list[str]:
    """Links and files within the site that lead nowhere."""
    found = read(site)
    wrong = []
    for file, page in found.items():
        for target in [*page.links, *page.loaded]:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            to = (file.parent / unquote(parts.path)).resolve() if parts.path else file
            anchors = found[to].anchors if to in found else {""}
            if not to.is_file() or (to in found and unquote(parts.fragment) not in anchors):
                wrong.append(f"{file.relative_to(site.resolve())} links to {target}, which is not there")
    return wrong


def foreign(site: Path) -> list[str]:
    """What pages load from elsewhere."""
    return [
        f"{file.relative_to(site.resolve())} loads {target}"
        for file, page in read(site).items()
        for target in page.loaded
        if urlsplit(target).scheme not in ("", "data") or urlsplit(target).netloc
    ]
