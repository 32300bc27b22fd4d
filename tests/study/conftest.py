from dataclasses import replace

import pytest
import torch

from vae.data import strokes
from vae.evaluation import classifier
from vae.model.build import build, build_model
from vae.settings.config import is_at_mean
from vae.study import measures
from vae.study.subject import Effort, Subject


@pytest.fixture
def subject(compose, monkeypatch, tmp_path):
    """An untrained model and a few hundred strokes, or other `parts` of these data."""
    monkeypatch.setattr(strokes, "COUNTS", {"train": 400, "test": 300})
    monkeypatch.setattr(measures, "CACHE", tmp_path / "classifiers")
    monkeypatch.setattr(classifier, "STEPS", 20)
    monkeypatch.setattr(measures, "STEPS", 20)
    monkeypatch.setattr(measures, "SINGLE", 10)

    def make(*overrides, against=None, **parts):
        config = compose("data=strokes", f"data.root={tmp_path}", "backbone.hidden=[16,8]", *overrides)
        source = build(config, "data")
        data = replace(source.load(), **parts)
        torch.manual_seed(0)
        model = build_model(config, data.shape, len(data.classes))
        model.start_at(data.train.images / 255, data.train.labels)
        return Subject(model, source, data, Effort(images=30, samples=20), against, is_at_mean(config))

    return make
