"""Dimensions that span the plane, sliders of the others, and what collapsed ones say."""

import json

import pytest
import torch

from vae.evaluation.geometry import Geometry

pytestmark = pytest.mark.slow
MENUS = "[...document.querySelectorAll('.axes select')]"


def state(browser, expression):
    return browser.evaluate(f"explorer.panels[0].{expression}")


def choose(browser, axis, dim):
    """Choose a dimension in one of the two menus by the keyboard."""
    browser.evaluate(f"{MENUS}[{axis}].focus()")
    for _ in range(5):
        left = dim - int(browser.evaluate(f"{MENUS}[{axis}].value"))
        key, code = ("ArrowDown", 40) if left > 0 else ("ArrowUp", 38)
        if left:
            browser.call("Input.dispatchKeyEvent", type="rawKeyDown", key=key, windowsVirtualKeyCode=code)
    browser.settle()


def test_two_menus_choose_what_spans_the_plane(show, scene_of):
    browser, scene = show("conv in colour"), scene_of("conv in colour")
    assert state(browser, "plane.dims") == scene.active(2)  # those that say most
    browser.move(*browser.centre(".marks", 0.4, 0.4))
    before = state(browser, "z")
    choose(browser, 1, 1)
    choose(browser, 0, 4)
    assert state(browser, "plane.dims") == [4, 1] and state(browser, "z") == before
    sliders = browser.evaluate(
        "[...document.querySelectorAll('.sliders input')].map((slider) => Number(slider.dataset.dim))"
    )
    assert sliders == [0, 2, 3]
    places = torch.tensor(state(browser, "plane.places"))
    torch.testing.assert_close(places, torch.tensor(state(browser, "codes"))[:, [4, 1]])
    browser.move(*browser.centre(".marks", 0.6, 0.3))
    browser.settle()
    z = state(browser, "z")
    changed = [dim for dim in range(5) if z[dim] != pytest.approx(before[dim], abs=1e-9)]
    assert changed == [1, 4]
    x, y = state(browser, "plane.toPixel([explorer.panels[0].z[4], explorer.panels[0].z[1]])")
    left, top = browser.centre(".marks", 0, 0)
    assert (left + x, top + y) == pytest.approx(browser.centre(".marks", 0.6, 0.3), abs=0.1)


def test_the_priors_ellipses_follow_the_dimensions(show, scene_of):
    browser, scene = show("conv in colour"), scene_of("conv in colour")
    choose(browser, 0, 3)
    choose(browser, 1, 0)
    for sigmas in (1, 2, 3):
        (line,) = state(browser, f"plane.outlines[{sigmas - 1}]")
        away = torch.tensor(line, dtype=torch.float64) - scene.prior.mean[[3, 0]]
        covariance = scene.prior.covariance[[3, 0]][:, [3, 0]]
        distance = (away * torch.linalg.solve(covariance, away.T).T).sum(1).sqrt()
        torch.testing.assert_close(distance, torch.full_like(distance, sigmas))


def test_no_dimension_is_chosen_twice(show):
    browser = show("conv in colour")
    for axis in (0, 1):
        other = state(browser, "plane.dims")[1 - axis]
        closed = browser.evaluate(f"[...{MENUS}[{axis}].options].map((option) => option.disabled)")
        assert closed == [dim == other for dim in range(5)]
        for key, code in (("ArrowUp", 38), ("ArrowDown", 40)):
            browser.evaluate(f"{MENUS}[{axis}].focus()")
            for _ in range(5):
                browser.call("Input.dispatchKeyEvent", type="rawKeyDown", key=key, windowsVirtualKeyCode=code)
                first, second = state(browser, "plane.dims")
                assert first != second and [first, second][1 - axis] == other


def test_two_dimensions_need_no_menus(show):
    assert show("dense").evaluate("document.querySelector('.axes').hidden")


def test_contours_of_draws_hold_the_mass_of_their_sigmas(show):
    browser = show("dense")
    torch.manual_seed(0)
    points = torch.randn(1500, 2) @ torch.tensor([[1.0, 0.4], [0.0, 0.8]]) + torch.tensor([3.0, -1.0])
    lines = browser.evaluate(f"contours({json.dumps(points.tolist())})")
    expected = Geometry(torch.tensor([3.0, -1.0]).double(), torch.tensor([[1.0, 0.4], [0.4, 0.8]]).double())
    covariance = points.double().T.cov()
    for sigmas, segments in zip((1, 2, 3), lines, strict=True):
        at = torch.tensor(segments, dtype=torch.float64).flatten(0, 1) - expected.mean
        distance = (at * torch.linalg.solve(covariance, at.T).T).sum(1).sqrt()
        # Kernels as wide as Scott's rule says widen a Gaussian by a few hundredths.
        assert distance.mean() == pytest.approx(sigmas * 1.05, rel=0.08) and distance.std() < 0.25 * sigmas


def test_a_test_image_moves_all_sliders(show, scene_of):
    browser, scene = show("conv in colour"), scene_of("conv in colour")
    for _ in range(3):
        browser.click(*browser.centre(".take"))
        browser.settle()
        drawn = torch.tensor(browser.evaluate("[...explorer.panels[0].pad.image]")).view(1, 3, 20, 28)
        with torch.no_grad():
            q = scene.vae.encode(drawn)
        z = torch.tensor(state(browser, "z"))
        assert ((z - q.mean[0]).abs() <= 2e-2 * q.stddev[0]).all()
        sliders = browser.evaluate(
            "[...document.querySelectorAll('.sliders label')].map((label) => "
            "[Number(label.children[1].dataset.dim), Number(label.children[1].value), label.children[2].textContent])"
        )
        assert len(sliders) == 3
        for dim, value, written in sliders:
            assert value == pytest.approx(z[dim].item(), abs=1e-4)
            assert float(written.replace("−", "-")) == pytest.approx(value, abs=0.0051)


def collapsed(scene, dims):
    """A scene in whose dimensions the posterior is the prior."""
    with torch.no_grad():
        for layer in (scene.vae.posterior.mean, scene.vae.posterior.log_var):
            layer.weight[dims] = 0
            layer.bias[dims] = 0
    return scene


def told(browser):
    return browser.evaluate("((line) => line.hidden ? '' : line.textContent)(document.querySelector('.collapse'))")


def test_a_collapsed_model_says_so(show, scene_of):
    said = "z₀ and z₁ carry no information: KL 0.00 nats. Every point decodes to the same image."
    assert told(show(collapsed(scene_of("dense"), [0, 1]))) == said
    assert told(show(collapsed(scene_of("dense"), [1]))) == "z₁ carries no information: KL 0.00 nats."
    assert told(show("dense")) == ""


def test_a_plane_of_collapsed_dimensions_says_so(show, scene_of):
    scene = scene_of("conv in colour")
    with torch.no_grad():
        scene.vae.levels[0].encoding.mean.weight[[1, 2]] = 0
        scene.vae.levels[0].encoding.mean.bias[[1, 2]] = 0
    browser = show(scene)
    browser.evaluate("explorer.panels[0].run.kl = [2, 0.001, 0.004, 1, 3]; explorer.panels[0].span([2, 1])")
    assert told(browser) == (
        "z₂ and z₁ carry no information: KL 0.00 nats. Every point of this plane decodes to the same image."
    )
    browser.evaluate("explorer.panels[0].span([0, 4])")
    assert told(browser) == ""
