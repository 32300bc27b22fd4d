import json
import math

import pytest
import reproduce
from omegaconf import OmegaConf

from vae.runs.measured import NUMBERS
from vae.settings.compose import composed
from vae.settings.config import check

EVERY = reproduce.named([])


@pytest.mark.parametrize("each", EVERY, ids=lambda each: f"{each.name}-{each.schedule}")
def test_every_published_figure_has_a_run_that_measures_it(each):
    cfg = composed(*each.entry["overrides"], *each.own["overrides"])
    check(cfg)
    of_all_runs = ("test/total", "test/bits_per_dim")
    measure = next((name for name in NUMBERS if each.entry["metric"].removeprefix("test/") in NUMBERS[name]), "")
    assert each.entry["metric"] in of_all_runs or measure in cfg.evaluate.metrics
    data = cfg.data.get("name") or cfg.data.file
    assert data.startswith("cifar10" if "cifar10" in each.name else "mnist")
    assert {"source", "protocol", "published"} <= each.entry.keys()
    assert each.own["ours"] is None or each.own["ours"] <= each.at_most


def test_the_longest_schedule_that_fits_is_run():
    def chosen(names, budget):
        return [(each.name, each.schedule) for each in reproduce.within(reproduce.named(names), budget)]

    assert chosen(["iwae_paper"], 30) == [("iwae_paper", "short")]
    assert chosen(["iwae_paper"], 5000) == [("iwae_paper", "full")]
    assert chosen(["iwae_paper"], 3) == []
    assert chosen(["tutorial_2d", "tutorial_3d", "iwae_paper"], 30) == [
        ("tutorial_2d", "full"),
        ("tutorial_3d", "full"),
    ]


@pytest.mark.parametrize(("ours", "now"), [(88.0, "reached"), (88.1, "missed"), (math.nan, "missed"), (None, "failed")])
def test_a_figure_is_reached_up_to_its_tolerance(ours, now):
    each = next(each for each in EVERY if each.name == "iwae_paper" and each.schedule == "short")
    found = reproduce.row(each, ours, 12.4)
    assert (found["published"], found["at most"], found["now"], found["minutes"]) == (86.76, 88.0, now, "12")


def test_what_was_not_run_is_said(capsys):
    reproduce.main(["vamp_paper", "--list"])
    printed = capsys.readouterr().out
    assert "never run" in printed and "not run" in printed and "Tomczak and Welling (2018), VampPrior" in printed
    with pytest.raises(
        SystemExit, match=r"^error: betavae: nothing of this name was published; there are tutorial_2d, "
    ):
        reproduce.main(["betavae"])


@pytest.mark.slow
def test_runs_are_trained_and_compared(tmp_path, monkeypatch, image_folder, capsys):
    small = ["data=images", f"data.root={image_folder}", "data.channels=1", "epochs=1", "figures=none"]

    def entry(*overrides):
        schedules = {"short": {"overrides": list(overrides), "minutes": 1, "tolerance": 0, "ours": None}}
        about = {"source": "nobody", "protocol": "none", "metric": "test/total", "published": 1e6, "overrides": small}
        return about | {"schedules": schedules}

    OmegaConf.save({"good": entry(), "bad": entry("optimizer.lr=1e30")}, tmp_path / "published.yaml")
    monkeypatch.setattr(reproduce, "PUBLISHED", tmp_path / "published.yaml")
    monkeypatch.setattr(reproduce, "RUNS", tmp_path / "runs")
    with pytest.raises(SystemExit, match="1"):
        reproduce.main([])
    total = json.loads((tmp_path / "runs" / "good_short" / "metrics.json").read_text())["test/total"]
    written = (tmp_path / "runs" / "results.md").read_text()
    assert f"{total:.2f}" in written and "reached" in written and "failed" in written
