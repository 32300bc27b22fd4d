"""The parts of the site that move, under a mouse, a finger and keys."""

import numpy as np
import pytest
import torch
from torch.distributions import MultivariateNormal, kl_divergence

import vae
from vae.evaluation.theory import Curve

pytestmark = pytest.mark.slow
EXAMPLES = "outputs/examples"


def values(home, part, *names):
    """The values of a part's sliders."""
    found = {name: f"{part}.querySelector('input[name={name}]').valueAsNumber" for name in names}
    return [home.browser.evaluate(expression) for expression in found.values()]


def told(home, part, *names):
    """Numbers that a part has written."""
    texts = [home.browser.evaluate(f"{part}.querySelector('[data-told={name}]').textContent") for name in names]
    return [float(text.replace("−", "-").removesuffix(" nats")) for text in texts]


def set_slider(home, part, name, value):
    home.browser.evaluate(
        f"((input) => {{ input.value = {value}; input.dispatchEvent(new Event('input')); }})"
        f"({part}.querySelector('input[name={name}]'))"
    )
    home.settle()


def hand(home, selector, path, touch):
    """A mouse or a finger along places of an element, as shares of its size."""
    places = [home.browser.centre(selector, *place) for place in path]
    (home.browser.touch if touch else home.browser.drag)(places)
    home.settle()


SCREENS = [({"width": 1366, "height": 768}, False), ({"width": 360, "height": 740, "touch": True}, True)]


@pytest.mark.parametrize(("screen", "touch"), SCREENS, ids=["mouse", "finger"])
def test_the_kl_is_that_of_torch(home, screen, touch):
    home.open(**screen)
    part = home.part("[data-part=kl]")
    before = values(home, part, "m0", "m1")
    hand(home, "[data-part=kl] canvas", [(0.675, 0.425), (0.6, 0.5), (0.4, 0.7)], touch)  # from (1.4, 0.6)
    after = values(home, part, "m0", "m1")
    assert after[0] < before[0] - 1 and after[1] < before[1] - 1
    for tied, rho in (("false", -0.5), ("true", 0.8)):
        home.browser.evaluate(f"{part}.querySelector('[name=tied]').checked = {tied}")
        set_slider(home, part, "rho", rho)
        m0, m1, s0, s1, v0, v1 = values(home, part, "m0", "m1", "s0", "s1", "v0", "v1")
        own = rho * s0 * s1 if tied == "true" else 0.0
        shared = rho * (v0 * v1) ** 0.5
        q = MultivariateNormal(torch.tensor([m0, m1]), torch.tensor([[s0**2, own], [own, s1**2]]))
        p = MultivariateNormal(torch.zeros(2), torch.tensor([[v0, shared], [shared, v1]]))
        kl, trace, distance, volume = told(home, part, "kl", "trace", "distance", "volume")
        assert kl == pytest.approx(kl_divergence(q, p).item(), abs=0.006)
        assert kl == pytest.approx(0.5 * (trace + distance - 2 + volume), abs=0.02)
    home.browser.evaluate(f"{part}.querySelector('[name=tied]').checked = false")
    home.browser.evaluate(f"{part}.querySelector('[data-do=prior]').click()")
    home.settle()
    assert told(home, part, "kl", "trace", "volume") == [0, 2, 0]


def test_the_bound_is_below_the_evidence_by_the_gap(home):
    home.open()
    part = home.part("[data-part=elbo]")
    z = torch.linspace(-14, 14, 28001, dtype=torch.float64)
    image = torch.tensor([1.2, 0.5], dtype=torch.float64)
    normal = torch.distributions.Normal
    mean = Curve(0.3)(z[:, None]).flatten(1)
    joint = normal(0.0, 1.0).log_prob(z) + normal(mean, 0.5).log_prob(image).sum(1)
    evidence = (joint.exp().sum() * (z[1] - z[0])).log().item()
    for place in ((0.0, 1.0), (1.0, 0.3), (-1.2, 0.5), (2.3, 1.6), (0.4, 0.08)):
        for name, value in zip(("mean", "sigma"), place, strict=True):
            set_slider(home, part, name, value)
        q = normal(*torch.tensor(place, dtype=torch.float64))
        weights = q.log_prob(z).exp()
        elbo = ((joint - q.log_prob(z)) * weights / weights.sum()).sum().item()
        assert told(home, part, "evidence", "elbo", "gap") == pytest.approx([evidence, elbo, evidence - elbo], abs=2e-3)
    # To the higher mode, or to the other one, where it stays; also from where the bound is very steep.
    for start, sigma, least in ((0.3, 1, 0.5), (-1.2, 0.5, 1.2), (2.5, 1.6, 0.5)):
        set_slider(home, part, "mean", start)
        set_slider(home, part, "sigma", sigma)
        home.browser.evaluate(f"{part}.querySelector('[data-do=climb]').click()")
        home.browser.until(f"{part}.dataset.climbing === 'false'")
        gap = told(home, part, "gap")[0]
        assert (gap < least) == (start > 0)


def test_gradients_through_draws_come_near_the_exact_ones(home):
    home.open()
    part = home.part("[data-part=reparameterisation]")
    mean, sigma = values(home, part, "mean", "sigma")
    assert told(home, part, "exact-mean", "exact-sigma") == pytest.approx([2 * (mean - 1), 2 * sigma], abs=0.006)
    drawn, exact = (told(home, part, f"{of}mean", f"{of}sigma") for of in ("", "exact-"))
    assert np.abs(np.subtract(drawn, exact)).max() < 2
    for _ in range(40):
        home.browser.evaluate(f"{part}.querySelector('[data-do=step]').click()")
    home.settle()
    mean, sigma = values(home, part, "mean", "sigma")
    assert mean == pytest.approx(1, abs=0.15) and sigma < 0.15
    hand(home, "[data-part=reparameterisation] canvas", [(0.62, 0.83), (0.5, 0.83), (0.3, 0.83)], False)
    assert values(home, part, "mean")[0] < 0
    before = told(home, part, "mean")
    home.browser.evaluate(f"{part}.querySelector('[data-do=draw]').click()")
    home.settle()
    assert told(home, part, "mean") != before


@pytest.mark.parametrize(
    ("runs", "place"),
    [
        ("autoencoder", (0.7, 0.4)),
        ("tutorial_2d", (0.3, 0.6)),
        ("tutorial_3d", (0.6, 0.3)),
        ("tutorial_2d tutorial_correlated", (0.6, 0.4)),
    ],
)
@pytest.mark.parametrize(("screen", "touch"), SCREENS, ids=["mouse", "finger"])
def test_explorers_decode_what_torch_does(home, runs, place, screen, touch):
    home.open(**screen)
    part = home.part(f'[data-runs="{runs}"]')
    plane = f'[data-runs="{runs}"] .marks'
    hand(home, plane, [place, (place[0] + 0.05, place[1])], touch)
    for i, run in enumerate(runs.split()):
        z, image = home.browser.evaluate(
            f"((panel) => [panel.z, [...panel.decode(panel.z)]])({part}.explorer.panels[{i}])"
        )
        expected = vae.load(f"{EXAMPLES}/{run}").decode(torch.tensor([z]))
        assert np.abs(np.array(image) - expected.numpy().ravel()).max() < 1e-3
        assert np.abs(z).max() > 0.05
        shown = home.browser.evaluate(
            "((canvas) => [...canvas.getContext('2d').getImageData(0, 0, 28, 28).data].filter((_, at) => at % 4 === 0))"
            f"({part}.explorer.panels[{i}].find('.decoded canvas'))"
        )
        assert np.abs(np.array(shown) / 255 - np.array(image)).max() < 0.003
    first, *others = home.browser.evaluate(f"{part}.explorer.panels.map((panel) => panel.z)")
    assert all(z == first for z in others)
    home.browser.evaluate(f"document.querySelector('{plane}').focus()")
    home.browser.key("ArrowLeft")
    home.settle()
    assert home.browser.evaluate(f"{part}.explorer.panels[0].z[0]") < first[0]


@pytest.mark.parametrize(("run", "spread"), [("tutorial_2d", True), ("autoencoder", False)])
def test_a_drawing_is_encoded_where_torch_encodes_it(home, run, spread):
    home.open()
    part = home.part(f'[data-runs="{run}"]')
    hand(home, f'[data-runs="{run}"] .pad', [(0.4, 0.2), (0.5, 0.5), (0.45, 0.8)], False)
    written = home.browser.evaluate(f"{part}.explorer.panels[0].find('.draw .where').textContent")
    assert written.startswith("z₀ = ") and ("±" in written) == spread
    image, mean = home.browser.evaluate(
        f"((panel) => [[...panel.pad.image], panel.encoded.mean])({part}.explorer.panels[0])"
    )
    assert sum(image) > 10
    expected = vae.load(f"{EXAMPLES}/{run}").encode(np.array(image, np.float32).reshape(1, 1, 28, 28)).mean
    assert np.abs(np.array(mean) - expected.numpy().ravel()).max() < 0.02


def test_the_slider_of_beta_goes_through_the_trained_models(home):
    home.open()
    part = home.part("[data-part=beta]")
    hand(home, "[data-part=beta] .marks", [(0.6, 0.4), (0.62, 0.42)], False)
    seen = []
    for i, beta in enumerate(("0.25", "1", "4", "16", "64")):
        set_slider(home, part, "beta", i)
        home.browser.until(f"{part}.state().run.beta === '{beta}'")
        home.settle()
        z, image = home.browser.evaluate(f"((s) => [s.z, [...s.model.decode(s.z)]])({part}.state())")
        expected = vae.load(f"{EXAMPLES}/beta/beta={beta}").decode(torch.tensor([z])).numpy().ravel()
        assert np.abs(np.array(image) - expected).max() < 1e-3
        total, recon, kl = told(home, part, "total", "recon", "kl")
        assert total == pytest.approx(recon + kl, abs=0.11)
        seen.append((total, kl))
    assert [kl for _, kl in seen] == sorted((kl for _, kl in seen), reverse=True) and seen[-1][1] == 0


@pytest.mark.parametrize(("screen", "touch"), SCREENS, ids=["mouse", "finger"])
def test_codes_stand_for_what_is_nearest(home, screen, touch):
    home.open(**screen)
    part = home.part("[data-part=codes]")
    model = vae.load(f"{EXAMPLES}/tutorial_2d")

    def state():
        codes, features, place = home.browser.evaluate(
            f"(({{codes, features, place}}) => [codes, features, place])({part}.state())"
        )
        return np.array(codes), np.array(features), place

    def nearest(codes, features):
        return ((features[:, None] - codes) ** 2).sum(2).argmin(1)

    for count in (2, 12, 64):
        set_slider(home, part, "count", count)
        codes, features, _ = state()
        of = nearest(codes, features)
        error = ((features - codes[of]) ** 2).sum(1).mean()
        shares = np.bincount(of, minlength=count) / len(features)
        entropy = -(shares[shares > 0] * np.log(shares[shares > 0])).sum()
        expected = [error, (shares > 0).sum(), np.log(count), entropy]
        assert len(codes) == count
        assert told(home, part, "error", "used", "alike", "shares") == pytest.approx(expected, abs=0.006)
        home.browser.evaluate(f"{part}.querySelector('[data-do=step]').click()")
        home.settle()
        after, _, _ = state()
        for i, code in enumerate(after):
            if shares[i] > 0:
                assert np.allclose(code, features[of == i].mean(0))
            else:
                assert (features == code).all(1).any()

    set_slider(home, part, "count", 2)
    before, features, _ = state()
    start = np.array(before[0]) / [8, -8] + 0.5  # from -4 to 4
    hand(home, "[data-part=codes] canvas", [tuple(start), (0.4, 0.4), (0.3, 0.2)], touch)
    codes, _, place = state()
    assert np.allclose(codes[0], [-1.6, 2.4], atol=0.1) and np.allclose(codes[1], before[1])
    assert np.abs(np.subtract(place, codes[0])).max() < 1e-6
    image = home.browser.evaluate(f"{part}.state().decode({place})")
    assert np.abs(np.array(image) - model.decode(torch.tensor([place])).numpy().ravel()).max() < 1e-3
    home.browser.evaluate(f"{part}.querySelector('canvas').focus()")
    home.browser.key("ArrowRight")
    assert np.allclose(state()[0][0], codes[0] + [0.1, 0])
    home.browser.key("n")
    assert np.allclose(state()[2], before[1])


def test_the_film_plays_and_stops(home):
    home.open()
    part = home.part("[data-part=film]")
    position = f"parseFloat({part}.querySelector('.film').style.backgroundPositionY)"
    assert home.browser.evaluate(position) == 0
    home.browser.evaluate(f"{part}.querySelector('button').click()")
    home.browser.until(f"{position} > 5")
    home.browser.evaluate(f"{part}.querySelector('button').click()")
    stopped = home.browser.evaluate(position)
    home.browser.evaluate("new Promise((done) => setTimeout(done, 400))")
    assert home.browser.evaluate(position) == stopped
    set_slider(home, part, "epoch", 30)
    assert home.browser.evaluate(position) == 100


def test_sliders_answer_to_keys(home):
    home.open()
    part = home.part("[data-part=kl]")
    before = values(home, part, "m0")[0]
    home.browser.evaluate(f"{part}.querySelector('input').focus()")
    for kind in ("rawKeyDown", "keyUp"):
        home.browser.call(
            "Input.dispatchKeyEvent", type=kind, key="ArrowRight", code="ArrowRight", windowsVirtualKeyCode=39
        )
    assert before < values(home, part, "m0")[0] < before + 0.1
