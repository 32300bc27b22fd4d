import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor

from vae.data import strokes
from vae.data.base import Dataset
from vae.data.strokes import CORRELATION, FACTORS, Strokes, draw, render

MATRIX = np.array(CORRELATION)


@pytest.fixture
def small(monkeypatch) -> None:
    monkeypatch.setattr(strokes, "COUNTS", {"train": 300, "test": 100})


@pytest.fixture
def draws(monkeypatch) -> list[int]:
    """How many digits were drawn at each call of `draw`."""
    calls: list[int] = []

    def counted(count: int, correlation: np.ndarray, seed: int) -> strokes.Split:
        calls.append(count)
        return draw(count, correlation, seed)

    monkeypatch.setattr(strokes, "draw", counted)
    return calls


def same(a: Dataset, b: Dataset) -> bool:
    return all(torch.equal(x, y) for p, q in ((a.train, b.train), (a.test, b.test)) for x, y in zip(p, q, strict=True))


@pytest.fixture(scope="module")
def part() -> strokes.Split:
    return draw(20_000, MATRIX, seed=1)


# What is drawn


def test_types_shapes_and_ranges(part):
    assert part.images.shape == (20_000, 1, 28, 28) and part.images.dtype == torch.uint8
    assert part.labels.shape == (20_000,) and part.labels.dtype == torch.int64
    assert part.factors.shape == (20_000, 6) and part.factors.dtype == torch.float32
    assert torch.equal(part.labels.bincount(), torch.full((10,), 2000))
    assert part.labels[:1000].bincount(minlength=10).min() > 50  # in random order, so that `limit` keeps all classes


def test_ink_is_black_on_an_empty_ground_inside_the_frame(part):
    peak = part.images.amax((1, 2, 3))
    assert peak.min() >= 160 and (peak == 255).float().mean() > 0.999
    assert 0.75 < (part.images == 0).float().mean() < 0.85
    assert 0.12 < part.images.float().mean() / 255 < 0.15  # MNIST: 0.131
    border = torch.ones(28, 28, dtype=torch.bool)
    border[1:-1, 1:-1] = False
    assert (part.images[:, 0, border] > 0).any(1).float().mean() < 0.006
    middle = part.images[:, 0, 4:24, 4:24].float().sum() / part.images.float().sum()
    assert middle > 0.95


def test_the_same_seed_draws_the_same_in_chunks_of_any_size(monkeypatch):
    first = draw(300, MATRIX, seed=3)
    monkeypatch.setattr(strokes, "CHUNK", 77)
    assert all(torch.equal(a, b) for a, b in zip(first, draw(300, MATRIX, seed=3), strict=True))
    assert not torch.equal(first.images, draw(300, MATRIX, seed=4).images)


def test_no_two_digits_are_alike(part):
    assert len(np.unique(part.images.flatten(1).numpy(), axis=0)) == len(part)


@pytest.mark.parametrize("rho", [0.5, -0.8])
def test_factors_have_the_configured_correlation(rho):
    matrix = np.eye(6)
    matrix[0, 1] = matrix[1, 0] = rho
    matrix[3, 5] = matrix[5, 3] = 0.3
    n = 10_000
    factors = draw(n, matrix, seed=5).factors.double().numpy()
    error = np.sqrt((1 + matrix**2) / n)  # the variance of fᵢfⱼ is 1 + ρᵢⱼ²
    assert (np.abs(factors.T @ factors / n - matrix) < 5 * error).all()
    assert (np.abs(factors.mean(0)) < 5 / np.sqrt(n)).all()


def moments(images: Tensor) -> tuple[Tensor, ...]:
    """Mass and the central second moments xx, yy, xy of each image's ink; y points down."""
    ink = images[:, 0].double() / 255
    mass = ink.sum((1, 2))
    y, x = torch.meshgrid(torch.arange(28.0).double(), torch.arange(28.0).double(), indexing="ij")
    x, y = (v - (ink * v).sum((1, 2), keepdim=True) / mass[:, None, None] for v in (x, y))
    return mass, *((ink * v).sum((1, 2)) / mass for v in (x * x, y * y, x * y))


def lean(images: Tensor) -> Tensor:
    """Pixels to the right per pixel up."""
    _, _, yy, xy = moments(images)
    return -xy / yy


def bow(images: Tensor) -> Tensor:
    """How far the middle rows' ink lies to the right of the outer rows'."""
    ink, x = images[:, 0].double(), torch.arange(28.0).double()
    outer, middle = torch.cat([ink[:, :8], ink[:, 20:]], 1).sum(1), ink[:, 10:18].sum(1)
    return middle @ x / middle.sum(1) - outer @ x / outer.sum(1)


MEASURES: dict[str, Callable[[Tensor], Tensor]] = {
    "slant": lean,
    "thickness": lambda images: moments(images)[0],
    "width": lambda images: moments(images)[1],
    "height": lambda images: moments(images)[2],
    "rotation": lean,  # clockwise
    "wobble": bow,
}


@pytest.mark.parametrize("factor", FACTORS)
def test_each_factor_does_what_its_name_says(factor):
    labels = np.arange(500) % 10
    levels = []
    for level in (-1.5, 0.0, 1.5):
        factors = np.zeros((500, 6), dtype=np.float32)
        factors[:, FACTORS.index(factor)] = level
        images = render(labels, factors, np.random.default_rng(0))  # the same tremor at every level
        levels.append(MEASURES[factor](torch.from_numpy(images)))
    low, mean, high = levels
    assert ((low < mean) & (mean < high)).double().mean() > 0.98


def test_factors_can_be_read_from_the_images(part):
    for factor in ("slant", "thickness"):
        measure, true = MEASURES[factor](part.images[:5000]), part.factors[:5000, FACTORS.index(factor)]
        assert np.corrcoef(measure.numpy(), true.numpy())[0, 1] > 0.6, factor


def nearest_neighbours(train: strokes.Split, test: strokes.Split) -> float:
    classifier = KNeighborsClassifier(5).fit(train.images.flatten(1).float().numpy(), train.labels.numpy())
    return classifier.score(test.images.flatten(1).float().numpy(), test.labels.numpy())


def test_classes_are_clear_yet_vary(part):
    accuracy = nearest_neighbours(part, draw(2000, MATRIX, seed=2))
    assert 0.97 <= accuracy <= 0.999


@pytest.mark.slow
def test_classes_of_the_whole_set_are_clear_yet_vary(tmp_path):
    data = Strokes(tmp_path).read()
    assert (len(data.train), len(data.test)) == (60_000, 10_000)
    assert 0.97 <= nearest_neighbours(data.train, data.test) <= 0.999


def test_skeletons_are_smooth_and_evenly_sampled():
    points, lengths, counts = strokes._skeletons()
    assert len(points) == len(lengths) == counts.sum() and len(counts) == 10
    steps = np.linalg.norm(np.diff(points), axis=1)
    even = lengths[:, None] / strokes.POINTS
    assert (steps < 1.01 * even).mean() > 0.97  # longer only where the pen is lifted
    assert ((steps < 0.9 * even).sum(1) <= 3).all()  # shorter only where a corner is cut


# What is read


@pytest.mark.usefixtures("small")
def test_read_and_load(tmp_path):
    source = Strokes(tmp_path, limit=200, val_fraction=0.25)
    data = source.read()
    assert data.name == "strokes" and data.shape == (1, 28, 28)
    assert (len(data.train), len(data.test)) == (300, 100)
    assert data.classes == tuple("0123456789") and data.factor_names == FACTORS
    assert not torch.equal(data.train.images[:100], data.test.images)
    loaded = source.load()
    assert (len(loaded.train), len(loaded.val), len(loaded.test)) == (150, 50, 100)
    assert loaded.val.factors.shape == (50, 6)


@pytest.mark.usefixtures("small")
def test_cache_gives_the_same_without_drawing(tmp_path, draws):
    first = Strokes(tmp_path).read()
    assert draws == [300, 100]
    assert same(first, Strokes(tmp_path).read()) and len(draws) == 2
    assert same(first, Strokes(tmp_path / "elsewhere").read()) and len(draws) == 4


@pytest.mark.usefixtures("small")
def test_all_that_matters_is_in_the_key(tmp_path, draws, monkeypatch):
    first = Strokes(tmp_path).read()
    assert not same(first, Strokes(tmp_path, seed=1).read())
    assert not same(first, Strokes(tmp_path, correlation=np.eye(6).tolist()).read())
    monkeypatch.setattr(strokes, "VERSION", strokes.VERSION + 1)
    Strokes(tmp_path).read()
    assert len(draws) == 8
    assert len(list(tmp_path.glob("strokes/*.npz"))) == 4


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("spoil", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"no archive"])
def test_broken_cache_is_made_again(tmp_path, draws, spoil, caplog):
    first = Strokes(tmp_path).read()
    (path,) = tmp_path.glob("strokes/*.npz")
    path.write_bytes(spoil(path.read_bytes()))
    assert same(first, Strokes(tmp_path).read()) and len(draws) == 4
    assert "made again" in caplog.text
    assert same(first, Strokes(tmp_path).read()) and len(draws) == 4


@pytest.mark.usefixtures("small")
def test_flipped_byte_in_the_cache_is_noticed(tmp_path, draws):
    first = Strokes(tmp_path).read()
    (path,) = tmp_path.glob("strokes/*.npz")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    assert same(first, Strokes(tmp_path).read()) and len(draws) == 4


@pytest.mark.usefixtures("small")
def test_folder_that_cannot_be_written_means_no_cache(tmp_path, draws, caplog):
    (tmp_path / "file").touch()
    with caplog.at_level(logging.WARNING):
        data = Strokes(tmp_path / "file" / "root").read()
    assert len(data.train) == 300 and draws == [300, 100]
    assert [record.name for record in caplog.records] == ["vae.data.cache"] and "cannot be kept" in caplog.text


@pytest.mark.usefixtures("small")
def test_full_disk_means_no_cache(tmp_path, draws, monkeypatch, caplog):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    assert len(Strokes(tmp_path).read().test) == 100
    assert draws == [300, 100] and "No space left" in caplog.text
    assert not list(tmp_path.glob("strokes/*.npz")) and not list(tmp_path.glob("strokes/.*.npz"))


@pytest.mark.usefixtures("small")
def test_many_at_once_draw_once(tmp_path, draws):
    with ThreadPoolExecutor(4) as pool:
        first, *others = pool.map(lambda _: Strokes(tmp_path).read(), range(4))
    assert draws == [300, 100] and all(same(first, other) for other in others)


# What is configured


def test_yaml_and_python_agree(compose):
    config = dict(compose("data=strokes")["data"])
    assert config.pop("_target_") == "vae.data.strokes.Strokes"
    default = Strokes(config["root"])
    configured = Strokes(**config)
    assert default.__dict__.keys() - {"root"} <= config.keys()
    assert np.array_equal(default.__dict__.pop("correlation"), configured.__dict__.pop("correlation"))
    assert default.__dict__ == configured.__dict__


@pytest.mark.parametrize(
    ("correlation", "why"),
    [
        (np.eye(5).tolist(), "must be 6×6, but it is 5×5"),
        ((2 * np.eye(6)).tolist(), "diagonal of ones"),
        ((np.eye(6) + np.eye(6, k=1) / 2).tolist(), "symmetric"),
        ((1.5 * np.ones((6, 6)) - np.eye(6) / 2).tolist(), "smallest eigenvalue is -0.5"),
    ],
)
def test_wrong_correlation_is_refused(tmp_path, correlation, why):
    with pytest.raises(ValueError, match=why) as caught:
        Strokes(tmp_path, correlation=correlation)
    assert str(caught.value).startswith("data.correlation=") and "\n" not in str(caught.value)
