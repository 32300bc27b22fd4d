"""Several runs on a page: what is done in one is done in the others."""

import pytest
import torch

pytestmark = pytest.mark.slow
BESIDE = {"width": 1920, "height": 1080}


def of(browser, panel, expression):
    return browser.evaluate(f"explorer.panels[{panel}].{expression}")


def numbers(browser, panel, expression):
    return torch.tensor(of(browser, panel, expression))


def choose(browser, mode):
    """Click on a button of the switch."""
    browser.click(*browser.centre(f"[data-mode={mode}]"))
    assert browser.evaluate(f"document.querySelector('[data-mode={mode}]').ariaPressed") == "true"


def test_a_drawing_is_shared_by_runs_side_by_side(show):
    browser = show("dense", "one dimension", "conv", width=1920, height=1080)
    browser.drag([browser.centre(".pad", *at) for at in ((0.3, 0.3), (0.7, 0.6))])
    browser.settle()
    first, second, other = (browser.evaluate(f"[...explorer.panels[{i}].pad.image]") for i in range(3))
    assert first == second and any(first) and not any(other)  # whose images have another shape
    assert browser.evaluate("explorer.panels[1].encoded.mean.length") == 1


def test_a_test_image_is_shared_with_its_class(show):
    browser = show("dense", "conditional dense", width=1920, height=1080)
    for _ in range(4):
        browser.evaluate("document.querySelector('.take').click()")
        first, second = (browser.evaluate(f"[...explorer.panels[{i}].pad.image]") for i in range(2))
        size = len(first)
        values, labels = browser.evaluate(
            "[[...explorer.panels[0].run.images.values], explorer.panels[0].run.images.labels]"
        )
        images = [values[i * size : (i + 1) * size] for i in range(len(labels))]
        chosen = images.index([round(255 * value) for value in first])
        assert first == second and browser.evaluate("explorer.panels[1].label") == labels[chosen]


def test_a_point_and_a_line_are_at_the_same_code(show):
    browser = show("dense", "vamp", **BESIDE)
    browser.drag([browser.centre(".marks", x, 0.4) for x in (0.3, 0.5, 0.7)])
    browser.settle()
    assert of(browser, 0, "z") == of(browser, 1, "z") and of(browser, 0, "line") == of(browser, 1, "line") is not None
    assert of(browser, 1, "find('.strip').classList.contains('empty')") is False
    shown = browser.evaluate("explorer.panels[1].find('.decoded .where').textContent")
    assert shown == browser.evaluate("explorer.panels[0].find('.decoded .where').textContent")
    browser.key("ArrowUp")
    browser.settle()
    assert of(browser, 0, "z") == of(browser, 1, "z")
    browser.key("Escape")
    browser.settle()
    assert of(browser, 0, "line") is None and of(browser, 1, "line") is None


def test_a_point_and_a_line_are_at_the_same_image(show, scene_of):
    browser = show("dense", "vamp", **BESIDE)
    choose(browser, "image")
    browser.drag([browser.centre(".marks", *at) for at in ((0.3, 0.3), (0.5, 0.4), (0.7, 0.4))])
    browser.settle()
    first, second = scene_of("dense").vae, scene_of("vamp").vae
    for mine, theirs in (("z", "z"), ("line.from", "line.from"), ("line.to", "line.to")):
        z = numbers(browser, 0, mine)[None]
        with torch.no_grad():
            q = second.encode(first.decode(z).mean)
        assert ((numbers(browser, 1, theirs) - q.mean[0]).abs() <= 3e-2 * q.stddev[0]).all()
    assert of(browser, 0, "z") != of(browser, 1, "z")


def test_what_is_done_in_the_second_run_happens_in_the_first(show):
    browser = show("dense", "vamp", **BESIDE)
    browser.evaluate("explorer.panels[1].element.id = 'second'")
    browser.move(*browser.centre("#second .marks", 0.3, 0.3))
    browser.settle()
    there = of(browser, 1, "z")
    assert there == of(browser, 0, "z")
    browser.move(*browser.centre(".marks", 0.6, 0.6))
    browser.settle()
    assert of(browser, 0, "z") == of(browser, 1, "z") != there


def test_a_drawing_is_at_the_code_or_at_the_image(show, scene_of):
    browser = show("dense", "vamp", **BESIDE)
    path = [browser.centre(".pad", *at) for at in ((0.3, 0.3), (0.7, 0.3), (0.4, 0.8))]
    browser.drag(path)
    browser.settle()
    assert of(browser, 0, "encoded") == of(browser, 1, "encoded")
    assert of(browser, 1, "find('.reconstruction + figcaption').textContent") == "of the same code"
    browser.evaluate("document.querySelector('.clear').click()")
    browser.settle()
    assert of(browser, 1, "encoded") is None and not any(of(browser, 1, "pad.image.reduce((a, v) => [...a, v], [])"))
    choose(browser, "image")
    browser.drag(path)
    browser.settle()
    drawn = numbers(browser, 1, "pad.image.reduce((a, v) => [...a, v], [])").view(1, 1, 10, 12)
    with torch.no_grad():
        q = scene_of("vamp").vae.encode(drawn)
    assert drawn.max() == 1
    assert ((numbers(browser, 1, "encoded.mean") - q.mean[0]).abs() <= 2e-2 * q.stddev[0]).all()
    assert of(browser, 1, "find('.reconstruction + figcaption').textContent") == "reconstructed"


@pytest.mark.parametrize("mode", ["code", "image"])
def test_a_test_image_moves_the_points_of_all(show, mode):
    browser = show("dense", "vamp", **BESIDE)
    choose(browser, mode)
    browser.click(*browser.centre(".take"))
    browser.settle()
    first, second = (of(browser, panel, "encoded.mean") for panel in range(2))
    assert of(browser, 0, "z") == first and of(browser, 1, "z") == second and (first == second) == (mode == "code")


def test_other_numbers_of_dimensions_go_by_image_only_and_the_page_says_so(show):
    browser = show("dense", "one dimension", **BESIDE)
    assert browser.evaluate("document.querySelector('[data-mode=code]').disabled")
    said = browser.evaluate("document.querySelector('.mirror span').textContent")
    assert said == "The other run follows (2 and 1 dimensions: by image only)"
    before = of(browser, 1, "z")
    browser.move(*browser.centre(".marks", 0.7, 0.3))
    browser.settle()
    assert of(browser, 1, "z") != before and len(of(browser, 1, "z")) == 1


def test_the_switch_ends_it_and_a_key_goes_on(show):
    browser = show("dense", "vamp", **BESIDE)
    choose(browser, "off")
    before = of(browser, 1, "z")
    browser.move(*browser.centre(".marks", 0.7, 0.3))
    browser.settle()
    assert of(browser, 1, "z") == before
    browser.key("s")
    browser.move(*browser.centre(".marks", 0.3, 0.3))
    browser.settle()
    assert of(browser, 1, "z") == of(browser, 0, "z")


def test_runs_with_nothing_in_common_and_a_single_run_have_no_switch(show):
    browser = show("one dimension", "conv", **BESIDE)
    assert browser.evaluate("document.querySelector('.mirror').hidden")
    browser.move(*browser.centre(".marks", 0.3, 0.3))
    browser.settle()
    assert of(browser, 1, "z") == of(browser, 1, "run.prior.mean")
    assert show("dense").evaluate("document.querySelector('.mirror').hidden")


def test_the_class_is_the_same_in_conditional_models(show):
    browser = show("conditional dense", "conditional dense", **BESIDE)
    browser.move(*browser.centre(".marks", 0.4, 0.4))
    browser.key("2")
    browser.settle()
    assert of(browser, 0, "label") == 2 == of(browser, 1, "label")
