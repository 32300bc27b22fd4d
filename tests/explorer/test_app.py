"""The page in a real browser, as a hand would use it."""

import json

import pytest
import torch
from page_models import MODELS
from PIL import Image

from vae.explorer.page import describe, page

pytestmark = pytest.mark.slow  # those of several runs, of dimensions and of screens are in files of their own
PANEL = "explorer.panels[0]"


def state(browser, expression):
    return browser.evaluate(f"{PANEL}.{expression}")


@pytest.mark.parametrize("name", MODELS)
def test_computes_what_torch_does(show, scene_of, name):
    browser, scene = show(name), scene_of(name)
    images, labels = scene.test_images(range(3)), scene.loader.labels[:3]
    z = torch.randn(3, scene.latent_dim)
    with torch.no_grad():
        q, decoded = scene.vae.encode(images, labels), scene.vae.decode(z, labels).mean
    for i, label in enumerate(labels.tolist()):
        image = json.dumps(images[i].flatten().tolist())
        code = torch.tensor(state(browser, f"model.encode(Float32Array.from({image}), {label}).mean"))
        assert ((code - q.mean[i]).abs() <= 1.1e-2 * q.stddev[i]).all()
        seen = torch.tensor(state(browser, f"model.decode({z[i].tolist()}, {label}).reduce((a, v) => [...a, v], [])"))
        torch.testing.assert_close(seen, decoded[i].flatten(), rtol=0, atol=1e-3)


def test_the_point_follows_the_pointer_and_the_arrow_keys(show, scene_of):
    browser, scene = show("dense"), scene_of("dense")
    for place in ((0.6, 0.4), (0.3, 0.7)):
        browser.move(*browser.centre(".marks", *place))
        browser.settle()
        z = torch.tensor([state(browser, "z")])
        shown = browser.evaluate(
            "(({width, height}, context) => [...context.getImageData(0, 0, width, height).data])"
            "(...((canvas) => [canvas, canvas.getContext('2d')])(document.querySelector('.decoded canvas')))"
        )
        with torch.no_grad():
            expected = scene.vae.decode(z).mean.flatten()
        torch.testing.assert_close(
            torch.tensor(shown)[::4] / 255, expected, rtol=0, atol=4e-3
        )  # grey in steps of 1/255
    browser.key("ArrowRight")
    browser.key("ArrowUp")
    browser.settle()
    torch.testing.assert_close(torch.tensor([state(browser, "z")]) - z, torch.full((1, 2), 0.1))


def test_a_drag_interpolates(show, tmp_path):
    browser = show("dense")
    assert state(browser, "line") is None
    browser.drag([browser.centre(".marks", x, 0.4) for x in (0.3, 0.5, 0.7)])
    browser.settle()
    line = state(browser, "line")
    assert line["from"][0] < line["to"][0] and line["from"][1] == pytest.approx(line["to"][1])
    assert browser.evaluate("document.querySelector('.strip canvas').width") == 11 * 12 + 10
    last = browser.evaluate(f"[...{PANEL}.strip.images[10]]")
    assert last == pytest.approx(browser.evaluate(f"[...{PANEL}.decode({PANEL}.line.to)]"))
    browser.key("Escape")
    assert state(browser, "line") is None


@pytest.mark.parametrize("name", ["dense", "conditional conv"])
def test_a_drawing_is_encoded(show, scene_of, name):
    browser, scene = show(name), scene_of(name)
    browser.drag([browser.centre(".pad", *at) for at in ((0.3, 0.3), (0.7, 0.3), (0.4, 0.8))])
    browser.settle()
    drawn = torch.tensor(browser.evaluate(f"[...{PANEL}.pad.image]")).view(1, *MODELS[name].shape)
    assert drawn.max() == 1 and 0.02 < drawn.mean() < 0.6
    with torch.no_grad():
        q = scene.vae.encode(drawn, torch.tensor([0]))
    assert ((torch.tensor(state(browser, "encoded.mean")) - q.mean[0]).abs() <= 2e-2 * q.stddev[0]).all()
    assert "±" in browser.evaluate("document.querySelector('.draw .where').textContent")
    browser.key("c")
    assert state(browser, "encoded") is None


def test_what_is_done_before_the_page_is_laid_out_is_shown_then(browser, scene_of, tmp_path):
    text = page([describe(scene_of("dense"), "run")]) + (
        "<script>ready.then(() => {"
        "  explorer.panels[0].drawLine({from: [-1, 0], to: [1, 0]}); explorer.panels[0].drawSamples();"
        "})</script>"
    )
    (tmp_path / "page.html").write_text(text, encoding="utf-8")
    browser.open((tmp_path / "page.html").as_uri())
    browser.settle()
    assert browser.evaluate("document.querySelectorAll('.empty').length") == 1  # the drawing


def test_a_browser_that_cannot_inflate_says_what_it_takes(show, browser):
    script = browser.call("Page.addScriptToEvaluateOnNewDocument", source="delete window.DecompressionStream")
    try:
        show("dense")
        said = browser.evaluate("document.querySelector('main').textContent")
    finally:
        browser.call("Page.removeScriptToEvaluateOnNewDocument", identifier=script["identifier"])
    assert said == "This browser is too old for this page: it takes Chrome 80, Firefox 113, Safari 16.4 or later."


def test_a_drawing_moves_to_the_middle(show):
    browser = show("dense")
    browser.click(*browser.centre(".pad", 0.2, 0.2))
    browser.key("m")
    image = torch.tensor(browser.evaluate(f"[...{PANEL}.pad.image]")).view(10, 12)
    rows, columns = torch.arange(10.0), torch.arange(12.0)
    assert abs((image.sum(1) * rows).sum() / image.sum() - 4.5) <= 0.5
    assert abs((image.sum(0) * columns).sum() / image.sum() - 5.5) <= 0.5


def test_keys_change_what_is_seen(show, tmp_path):
    browser = show("conditional dense")
    seen = []
    for key in ("p", "v", "w", "2", "i", "t", "v", "?"):
        browser.key(key)
        browser.settle()
        browser.screenshot(tmp_path / f"{key}.png")
        seen.append((tmp_path / f"{key}.png").read_bytes())
    assert len(set(seen)) == len(seen)
    assert state(browser, "samples.length") == 30 and state(browser, "frame.symbol") == "u"
    assert browser.evaluate("document.documentElement.dataset.theme") == "dark"
    assert browser.evaluate("document.getElementById('help').open")
    with Image.open(tmp_path / "v.png") as shot:
        assert len(shot.convert("RGB").getcolors(1 << 24)) > 50  # a page that failed is one colour


def test_whitening_makes_the_prior_round(show):
    browser = show("conv in colour")
    browser.key("w")
    z = state(browser, "frame.from([1, 0, 0, 0, 0])")
    factor = state(browser, "prior.factor")
    torch.testing.assert_close(torch.tensor(z), torch.tensor([row[0] for row in factor]))
    assert state(browser, f"frame.to({z})") == pytest.approx([1, 0, 0, 0, 0])
    covariance = state(browser, "frame.covariance(explorer.panels[0].prior.factor, [1, 3])")
    torch.testing.assert_close(torch.tensor(covariance).float(), torch.eye(2))


def test_a_slider_moves_a_further_dimension_and_decodes_the_sheet_again(show):
    browser = show("conv in colour")
    browser.key("v")
    browser.settle()
    tiles = "canvas => [...canvas.getContext('2d').getImageData(0, 0, 400, 400).data].reduce((a, b) => a + b)"
    before = browser.evaluate(f"({tiles})({PANEL}.sheet.canvas)")
    browser.move(*browser.centre(".marks", 0.3, 0.3))
    browser.settle()
    assert browser.evaluate(f"({tiles})({PANEL}.sheet.canvas)") == before
    browser.evaluate(
        "((slider) => { slider.value = slider.max; slider.dispatchEvent(new Event('input')); })"
        "(document.querySelector('.sliders input'))"
    )
    browser.settle()
    dim = int(browser.evaluate("document.querySelector('.sliders input').dataset.dim"))
    high = float(browser.evaluate("document.querySelector('.sliders input').max"))
    assert dim not in state(browser, "run.dims") and state(browser, f"z[{dim}]") == pytest.approx(high)
    assert browser.evaluate(f"({tiles})({PANEL}.sheet.canvas)") != before


def test_a_click_on_a_dot_goes_to_its_code(show):
    browser = show("conv in colour")
    left, top = browser.centre(".marks", 0, 0)
    x, y = state(browser, "plane.toPixel(explorer.panels[0].plane.places[7])")
    browser.click(left + x, top + y)
    assert state(browser, "z") in state(browser, "codes")


def test_draws_from_the_prior_have_its_moments(show):
    browser = show("conv in colour")
    draws = torch.tensor(
        state(browser, "codes.constructor.from({length: 5000}, () => explorer.panels[0].prior.sample())")
    )
    factor = torch.tensor(state(browser, "prior.factor"))
    torch.testing.assert_close(draws.T.cov(), factor @ factor.T, rtol=0, atol=0.12)  # 6 standard errors of a variance
    assert (draws.mean(0).abs() < 6 / 5000**0.5).all()


def test_a_finger_moves_the_point_or_draws_a_line(show):
    browser = show("dense", width=390, height=844, touch=True)
    path = [browser.centre(".marks", x, 0.5) for x in (0.4, 0.5, 0.6)]
    browser.touch(path)
    browser.settle()
    x, _ = state(browser, "plane.toPixel(explorer.panels[0].plane.place(explorer.panels[0].z))")
    assert x == pytest.approx(path[-1][0] - browser.centre(".marks", 0, 0)[0], abs=1)
    assert state(browser, "line") is None
    browser.evaluate("document.querySelector('button.line').click()")
    browser.touch(path)
    browser.settle()
    assert state(browser, "line")["to"][0] > state(browser, "line")["from"][0]


def test_thirty_frames_a_second(browser, scene_of, compose, tmp_path):
    from vae.model.build import build_model
    from vae.study.scene import Scene

    scene = scene_of("dense")
    config = compose("data=strokes")
    scene.loader.images = torch.randint(0, 256, (3000, 1, 28, 28), dtype=torch.uint8)
    scene.loader.labels = torch.arange(3000) % 3
    about = {"config": config, "data": "strokes", "classes": scene.classes}
    large = Scene(build_model(config, (1, 28, 28), 3).eval(), scene.loader, about, 1)
    (tmp_path / "page.html").write_text(page([describe(large, "run")]), encoding="utf-8")
    browser.open((tmp_path / "page.html").as_uri())
    browser.settle()
    frames = browser.evaluate(
        "(async () => { const start = performance.now(); let frames = 0;"
        "  while (performance.now() - start < 1000) {"
        "    explorer.panels[0].moveTo([Math.sin(frames), Math.cos(frames)]);"
        "    await new Promise(requestAnimationFrame); frames++; }"
        "  return frames; })()"
    )
    assert frames >= 30
