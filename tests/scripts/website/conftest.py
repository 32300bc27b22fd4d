import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Browser

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="session")
def site(tmp_path_factory) -> Path:
    """The whole site, as its command makes it."""
    pytest.importorskip("furo", reason="needs the extra docs")
    out = tmp_path_factory.mktemp("site") / "site"
    command = [sys.executable, ROOT / "scripts" / "site.py", "--out", out]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


class Home:
    """The first page in a browser."""

    def __init__(self, browser: Browser, site: Path):
        self.browser, self.site = browser, site

    def open(self, width: int = 1366, height: int = 768, **more: bool) -> Browser:
        """Load it on a screen of that size."""
        self.browser.open((self.site / "index.html").as_uri(), width=width, height=height, **more)
        self.browser.evaluate("document.documentElement.style.scrollBehavior = 'auto'")  # at once
        return self.browser

    def part(self, name: str) -> str:
        """Scroll to a part, wait until it is alive; how scripts find it."""
        found = f"document.querySelector('.live{name}')"
        self.browser.evaluate(f"{found}.scrollIntoView({{block: 'start'}})")
        self.browser.until(f"{found}.classList.contains('ready') || {found}.dataset.error")
        assert self.browser.evaluate(f"{found}.dataset.error ?? ''") == ""
        self.settle()
        return found

    def settle(self) -> None:
        """Wait for two frames."""
        self.browser.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def scroll_through(self) -> None:
        """Go down to the end, a screen at a time, and wait until all parts are alive."""
        screens = self.browser.evaluate("Math.ceil(document.documentElement.scrollHeight / innerHeight)")
        for screen in range(screens + 1):
            self.browser.evaluate(f"scrollTo(0, {screen} * innerHeight)")
            self.settle()
        ready = "(part) => part.classList.contains('ready') || part.dataset.error"
        self.browser.until(f"[...document.querySelectorAll('.live')].every({ready})")


@pytest.fixture
def home(browser, site) -> Iterator[Home]:
    """Opens the first page; afterwards nothing may have failed, and nothing been asked of elsewhere."""
    browser.errors.clear()
    yield Home(browser, site)
    assert browser.errors == []
    assert all(url.startswith((site.as_uri(), "data:")) for url in browser.requests)
