"""All pages of the site: what they hold, on screens of several sizes, in light and dark, without a network."""

import re
import shutil
import subprocess

import pytest
from website import checks

pytestmark = pytest.mark.slow
SIZES = [(360, 740), (768, 1024), (1366, 768), (1920, 1080), (3840, 2160)]
FIRST_VIEW = 300_000  # bytes


def test_it_is_whole_and_small(site):
    checks.check(site)
    assert sum(file.stat().st_size for file in site.rglob("*") if file.is_file()) < checks.MOST_BYTES
    names = {file.relative_to(site).as_posix() for file in site.rglob("*.html")}
    pages = "index theory choices runs evaluating launchers reliability architecture decisions/index gallery"
    assert {f"{page}.html" for page in [*pages.split(), "api/index", "api/vae.model", "notebooks/latent_2d"]} <= names


def test_formulas_are_drawn_by_the_browser_itself(site):
    text = (site / "theory.html").read_text(encoding="utf-8")
    assert text.count("<math") > 150 and "<merror" not in text
    assert not re.search(r"\\mathbb|\$", re.sub(r"<[^>]*>", "", text))


def test_notebooks_are_there_with_their_outputs(site):
    text = (site / "notebooks" / "latent_2d.html").read_text(encoding="utf-8")
    assert text.count("_images/jupyter_execute") >= 1 and "cell_output" in text


def test_the_reference_has_signatures_and_formulas(site):
    text = (site / "api" / "vae.model.html").read_text(encoding="utf-8")
    for name in ("vae.model.priors.Correlated", "vae.model.vae.VAE.forward", "vae.model.distributions.kl"):
        assert f'id="{name}"' in text


def test_search_finds_pages_from_a_double_click(browser, site):
    browser.errors.clear()
    browser.open((site / "search.html").as_uri() + "?q=posterior+collapse")
    browser.until("document.querySelectorAll('#search-results li').length > 2")
    found = browser.evaluate("[...document.querySelectorAll('#search-results a')].map((a) => a.getAttribute('href'))")
    assert any(target.startswith("theory.html") for target in found)


@pytest.mark.parametrize("size", SIZES, ids=lambda size: str(size[0]))
def test_nothing_shifts_or_scrolls_sideways(home, size):
    watch = home.browser.call(
        "Page.addScriptToEvaluateOnNewDocument",
        source="window.shift = 0; new PerformanceObserver((list) => { for (const entry of list.getEntries()) "
        "window.shift += entry.value; }).observe({type: 'layout-shift', buffered: true});",
    )
    try:
        browser = home.open(*size, touch=size[0] < 700)
        home.scroll_through()
    finally:
        browser.call("Page.removeScriptToEvaluateOnNewDocument", identifier=watch["identifier"])
    assert browser.evaluate("window.shift") < 0.02
    # A class of ours may be one of the theme's.
    seen = "(canvas) => !canvas.offsetParent || getComputedStyle(canvas).opacity === '1'"
    assert browser.evaluate(f"[...document.querySelectorAll('.live canvas')].every({seen})")
    assert browser.evaluate("document.documentElement.scrollWidth") <= size[0]


@pytest.mark.parametrize("page", ["theory", "choices", "gallery", "api/vae.model", "notebooks/latent_2d", "start"])
@pytest.mark.parametrize("width", [360, 1366])
def test_other_pages_do_not_scroll_sideways(browser, site, page, width):
    browser.errors.clear()
    browser.open((site / f"{page}.html").as_uri(), width=width, height=800, touch=width < 700)
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.errors == []


def test_the_first_view_is_light(home):
    browser = home.open()
    home.settle()
    names = {url.removeprefix(home.site.as_uri()).partition("?")[0] for url in browser.requests if url[:5] == "file:"}
    sizes = {name: (home.site / name.strip("/")).stat().st_size for name in names}
    print(f"{sum(sizes.values()) / 1000:.0f} kB")
    assert sum(sizes.values()) < FIRST_VIEW, sizes


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_axe_finds_nothing(home, dark, tmp_path):
    if shutil.which("npm") is None:
        pytest.skip("needs npm, to fetch axe-core")
    done = subprocess.run(["npm", "pack", "axe-core@4", "--silent"], cwd=tmp_path, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip("npm has no axe-core")
    shutil.unpack_archive(tmp_path / done.stdout.split()[-1], tmp_path)
    browser = home.open(dark=dark)
    home.scroll_through()
    browser.evaluate((tmp_path / "package" / "axe.min.js").read_text(encoding="utf-8") + ";0")
    found = browser.evaluate(
        "axe.run(document, {preload: false}).then(({violations}) => violations.map(({id, nodes}) => "
        "`${id}: ${nodes.slice(0, 3).map(({html}) => html.slice(0, 120)).join(' | ')}`))"
    )
    assert found == []
