"""The page on screens of several sizes."""

import pytest
import torch

pytestmark = pytest.mark.slow
SIZES = [(1366, 768), (1440, 900), (1920, 1080), (3840, 2160), (390, 844)]
IN_VIEW = "((box) => box.top >= 0 && box.left >= 0 && box.bottom <= innerHeight && box.right <= innerWidth)"


def in_view(browser, selector):
    return browser.evaluate(f"{IN_VIEW}(document.querySelector('{selector}').getBoundingClientRect())")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("names", [["dense"], ["one dimension"], ["conv in colour", "conditional dense"]])
def test_nothing_is_clipped(show, names, size):
    browser = show(*names, width=size[0], height=size[1])
    browser.key("p")
    browser.settle()
    assert browser.evaluate("document.documentElement.scrollWidth") <= size[0]
    outside = browser.evaluate(
        "[...document.querySelectorAll('.card')].flatMap((card) => [...card.querySelectorAll('*')].filter((e) => {"
        "  const [a, b] = [card.getBoundingClientRect(), e.getBoundingClientRect()];"
        "  return b.width && (b.left < a.left || b.right > a.right + 0.5 || b.bottom > a.bottom + 0.5);"
        "}).map((e) => e.outerHTML.slice(0, 80)))"
    )
    assert outside == []


def test_ten_classes_are_seen_beside_another_run(show):
    browser = show("conditional dense", "dense", width=1280)
    browser.evaluate(
        "((list) => list.replaceChildren(...Array.from({length: 10}, () => list.firstElementChild.cloneNode(true))))"
        "(document.querySelector('.classes div'))"
    )
    hidden = "((list) => list.scrollHeight - list.clientHeight)(document.querySelector('.classes div'))"
    assert browser.evaluate(hidden) == 0


@pytest.mark.parametrize("size", SIZES[:4])
def test_planes_and_decoded_images_of_two_runs_are_in_view_together(show, size):
    browser = show("dense", "vamp", width=size[0], height=size[1])
    browser.evaluate("explorer.panels[1].element.id = 'second'")
    for selector in (".plane", ".decoded .image", ".strip"):
        assert in_view(browser, selector) and in_view(browser, f"#second {selector}")


def test_on_a_phone_the_decoded_image_is_below_the_plane(show):
    browser = show("dense", width=390, height=844, touch=True)
    assert in_view(browser, ".plane") and in_view(browser, ".decoded .image")


PIXELS = "((canvas) => [...canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data].join())"


@pytest.mark.parametrize("touch", [False, True])
def test_an_image_out_of_view_is_seen_beside_the_pointer(show, touch):
    size = {"width": 390, "height": 844} if touch else {"width": 1366, "height": 768}
    browser = show("dense", "vamp", touch=touch, **size)
    browser.evaluate("explorer.panels[1].element.style.marginBottom = '2000px'")  # so that all can be scrolled away
    browser.evaluate("explorer.panels[1].element.id = 'second'")
    # The lower end of the first plane at the top of the screen, or on a phone the second one's upper end at the bottom.
    panel, edge, y = ("#second ", "top - innerHeight + 120", 784) if touch else ("", "bottom - 120", 60)
    browser.evaluate(f"scrollBy(0, document.querySelector('{panel}.plane').getBoundingClientRect().{edge})")
    assert not in_view(browser, f"{panel}.decoded .image")
    x = browser.evaluate(f"document.querySelector('{panel}.plane').getBoundingClientRect().x") + 200
    if touch:
        for kind, at in (("touchStart", x - 5), ("touchMove", x)):
            browser.call("Input.dispatchTouchEvent", type=kind, touchPoints=[{"x": at, "y": y}])
    else:
        browser.move(x - 5, y)
        browser.move(x, y)
    browser.settle()
    shown = "[...document.querySelectorAll('.peek')].filter((peek) => !peek.hidden)"
    assert browser.evaluate(f"{shown}.length") == 1
    left, top, right, bottom = browser.evaluate(
        f"((b) => [b.left, b.top, b.right, b.bottom])({shown}[0].getBoundingClientRect())"
    )
    assert left >= 0 and right <= size["width"] and top >= 0 and bottom <= size["height"]
    assert x < left - 20 or right + 20 < x  # what lies under the pointer stays free
    image = browser.evaluate(f"{PIXELS}(document.querySelector('{panel}.decoded .image'))")
    assert browser.evaluate(f"{PIXELS}({shown}[0])") == image
    if touch:
        browser.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
    else:
        browser.move(x, 700)
    assert browser.evaluate(f"{shown}.length") == 0


def test_an_image_in_view_is_not_seen_twice(show):
    browser = show("dense", "vamp", width=1366, height=768)
    browser.move(*browser.centre(".marks", 0.4, 0.9))
    browser.settle()
    assert browser.evaluate("document.querySelector('.peek').hidden")


LARGE = [".plane", ".decoded .image", ".strip canvas", ".sliders", "h1", ".name", ".axes select", ".note", ".take"]


def test_on_4k_everything_is_twice_as_large(show):
    measured = []
    for scale in (1, 2):
        browser = show("conv in colour", "conditional dense", width=1920 * scale, height=1080 * scale)
        browser.drag([browser.centre(".marks", x, 0.4) for x in (0.3, 0.5, 0.7)])
        browser.settle()
        sizes = [
            browser.evaluate(f"((b) => [b.width, b.height])(document.querySelector('{of}').getBoundingClientRect())")
            for of in LARGE
        ]
        measured.append(torch.tensor([*sizes, [browser.evaluate("explorer.panels[0].plane.ratio")] * 2]))
        seen = browser.evaluate("[explorer.panels[0].plane.width, explorer.panels[0].plane.height]")
    torch.testing.assert_close(measured[1], 2 * measured[0], rtol=0.01, atol=5)
    assert measured[1][0].tolist() == pytest.approx([2 * length for length in seen], abs=1)  # so are dots


def test_a_dot_is_found_under_the_pointer_on_4k(show):
    browser = show("conv in colour", width=3840, height=2160)
    left, top = browser.centre(".marks", 0, 0)
    x, y = browser.evaluate("explorer.panels[0].plane.toPixel(explorer.panels[0].plane.places[7])")
    browser.click(left + 2 * x, top + 2 * y)
    assert browser.evaluate("explorer.panels[0].codes.some((code) => code === explorer.panels[0].z)")
