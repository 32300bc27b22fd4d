import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from vae.data.base import Split
from vae.data.idx import IdxFiles
from vae.evaluation import classifier as module
from vae.evaluation.classifier import Classifier, trained_classifier


@pytest.fixture
def few_steps(monkeypatch):
    monkeypatch.setattr(module, "STEPS", 5)


@pytest.fixture
def no_training(monkeypatch):
    def refuse(*_):
        raise AssertionError("trained although the cache has one")

    return lambda: monkeypatch.setattr(module, "_train", refuse)


def bars(n, shape=(1, 12, 10)):
    """Noisy images with a bright bar at one of three places, sorted by its place."""
    labels = (torch.arange(n) * 3 // n).long()
    images = torch.randint(0, 100, (n, *shape), dtype=torch.uint8)
    for i, label in enumerate(labels.tolist()):
        images[i, ..., 3 * label + 1] += 120
    return Split(images, labels)


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_it_learns_the_classes_although_the_images_are_sorted(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "STEPS", 60)
    classifier = trained_classifier(bars(60 * 128), 3, tmp_path)  # each image is seen once
    test = bars(99)
    assert (classifier.classify(test.images) == test.labels).float().mean() > 0.95
    features = classifier.features(test.images)
    assert features.shape == (99, 64) and (features.std(0) > 0).all()
    assert not classifier.training and not any(weight.requires_grad for weight in classifier.parameters())


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 10, 13), (2, 7, 5), (1, 1, 1)])
def test_images_of_any_shape_as_bytes_or_floats(shape):
    classifier = Classifier(shape, 4)
    images = torch.randint(0, 256, (6, *shape), dtype=torch.uint8)
    assert classifier(images / 255).shape == (6, 4)
    features = classifier.features(images)
    assert features.shape == (6, 64)
    assert torch.allclose(features, classifier.features(images.double() / 255), atol=1e-6)
    assert torch.allclose(features[2:3], classifier.features(images[2:3]), atol=1e-6)


def test_it_comes_from_the_cache_the_second_time(tmp_path, few_steps, no_training):
    part = bars(30)
    first = trained_classifier(part, 3, tmp_path / "new")
    (file,) = (tmp_path / "new").glob("*.pt")
    torch.load(file, weights_only=True)
    no_training()
    second = trained_classifier(part, 3, tmp_path / "new")
    assert same(first, second) and not second.training
    assert not any(weight.requires_grad for weight in second.parameters())


def test_training_is_announced_because_it_takes_a_minute(tmp_path, few_steps, caplog):
    caplog.set_level("INFO")
    part = bars(30)
    for times in (1, 1):  # none when it comes from the cache
        trained_classifier(part, 3, tmp_path)
        assert caplog.text.count("training a classifier") == times


def test_fewer_steps_make_a_classifier_of_its_own(tmp_path, few_steps, no_training):
    part = bars(300)
    usual = trained_classifier(part, 3, tmp_path)
    short = trained_classifier(part, 3, tmp_path, 2)
    assert not same(usual, short) and len(list(tmp_path.glob("*.pt"))) == 2
    no_training()  # both are in the cache, and the usual number of steps is the usual classifier
    assert same(trained_classifier(part, 3, tmp_path, 5), usual) and same(trained_classifier(part, 3, tmp_path), usual)
    assert same(trained_classifier(part, 3, tmp_path, 2), short)


def test_other_images_labels_classes_or_versions_are_trained_for_themselves(tmp_path, few_steps, monkeypatch):
    part = bars(30)
    trained_classifier(part, 3, tmp_path)
    trained_classifier(Split(part.images.flip(0), part.labels), 3, tmp_path)
    trained_classifier(Split(part.images, part.labels.flip(0)), 3, tmp_path)
    trained_classifier(Split(part.images.mT, part.labels), 3, tmp_path)
    trained_classifier(part, 4, tmp_path)
    monkeypatch.setattr(module, "VERSION", 99)
    trained_classifier(part, 3, tmp_path)
    assert len(list(tmp_path.glob("*.pt"))) == 6


@pytest.mark.parametrize("damage", ["empty", "truncated", "text", "list", "other"])
def test_a_damaged_cache_is_trained_anew(tmp_path, few_steps, no_training, damage, caplog):
    part = bars(30)
    first = trained_classifier(part, 3, tmp_path)
    (file,) = tmp_path.glob("*.pt")
    if damage in ("list", "other"):
        torch.save([1] if damage == "list" else Classifier((1, 28, 28), 3).state_dict(), file)
    else:
        content = {"empty": b"", "truncated": file.read_bytes()[:5000], "text": b"no weights"}
        file.write_bytes(content[damage])
    assert same(trained_classifier(part, 3, tmp_path), first)
    assert str(file) in caplog.text
    no_training()
    assert same(trained_classifier(part, 3, tmp_path), first)


@pytest.mark.parametrize("place", ["in a file", "without a home"])
def test_where_nothing_can_be_kept_it_is_trained_all_the_same(tmp_path, few_steps, monkeypatch, caplog, place):
    part = bars(30)
    first = trained_classifier(part, 3, tmp_path)
    folder = tmp_path / "file" / "folder"
    (tmp_path / "file").touch()
    if place == "without a home":
        folder = Path("~/classifiers")
        monkeypatch.delenv("HOME", raising=False)
        monkeypatch.setattr(os, "getuid", lambda: 54321)
    assert same(trained_classifier(part, 3, folder), first)
    assert f"{folder}/classifier-" in caplog.text and "cannot be kept" in caplog.text


def test_programs_that_want_the_same_wait_for_the_first(tmp_path, few_steps, monkeypatch):
    trained = []
    train = module._train
    monkeypatch.setattr(module, "_train", lambda *arguments: (trained.append(1), train(*arguments)))
    part = bars(30)
    with ThreadPoolExecutor(3) as pool:
        first, *others = pool.map(lambda _: trained_classifier(part, 3, tmp_path), range(3))
    assert trained == [1] and all(same(first, other) for other in others)


def test_a_cache_file_runs_no_code(tmp_path, few_steps):
    class Harmful:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "harm"),)

    part = bars(30)
    trained_classifier(part, 3, tmp_path)
    (file,) = tmp_path.glob("*.pt")
    torch.save(Harmful(), file)
    trained_classifier(part, 3, tmp_path)
    assert not (tmp_path / "harm").exists() and list(tmp_path.glob("*.pt")) == [file]


def test_it_depends_on_no_global_state_and_leaves_it_as_it_was(tmp_path, few_steps):
    part = bars(30)
    first = trained_classifier(part, 3, tmp_path / "a")
    torch.manual_seed(5)
    before = torch.get_rng_state()
    second = trained_classifier(part, 3, tmp_path / "b")
    assert same(first, second)
    assert torch.equal(torch.get_rng_state(), before) and torch.is_grad_enabled()
    with torch.inference_mode():
        third = trained_classifier(part, 3, tmp_path / "c")
        assert torch.is_inference_mode_enabled() and same(first, third)
    assert not third.head.weight.is_inference()
    with torch.no_grad():
        assert same(first, trained_classifier(part, 3, tmp_path / "d")) and not torch.is_grad_enabled()


def test_fewer_images_than_a_batch_are_enough(tmp_path, few_steps):
    trained = trained_classifier(bars(3), 3, tmp_path)
    assert trained.features(bars(3).images).isfinite().all() and not same(trained, module._new((1, 12, 10), 3))


def test_data_without_classes_is_refused(tmp_path):
    with pytest.raises(ValueError, match="0 classes: must be at least 2"):
        trained_classifier(bars(30), 0, tmp_path)


@pytest.mark.slow
def test_it_knows_mnist(tmp_path):
    names = [str(digit) for digit in range(10)]
    root = Path(os.environ.get("VAE_DATA", "~/.cache/vae"))
    data = IdxFiles(root, name="mnist", classes=names, mirrors=[], digests={}).load()
    classifier = trained_classifier(data.train, 10, tmp_path)
    assert (classifier.classify(data.test.images) == data.test.labels).double().mean() > 0.98
