import ctypes
import gc
import io
import logging
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from matplotlib._pylab_helpers import Gcf
from models import awake
from PIL import Image
from PIL.GifImagePlugin import GifImageFile
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from vae.data.base import Dataset, Split
from vae.data.loader import BatchLoader
from vae.evaluation.latents import kl_per_dimension, variance
from vae.figures.style import Picture, axis_name, rasterise
from vae.model.build import build, build_model
from vae.model.checkpoints import about
from vae.model.priors import Prior
from vae.study import pictures
from vae.study.pictures import CODES_ALONE, OF_LEVELS, TAGS, TEMPERATURES, select
from vae.study.scene import Scene
from vae.training.callbacks.pictures import Pictures
from vae.training.callbacks.scalars import Scalars
from vae.training.module import VAEModule
from vae.training.strides import Strides
from vae.training.tensorboard import RunLogger

COMPOSED: dict[tuple[str, ...], dict] = {}  # composing takes longer than most pictures
UNREAD: Any = SimpleNamespace()

LIBC = ctypes.CDLL(None)
APPLY = [tag for tag in TAGS if tag not in (*OF_LEVELS, *CODES_ALONE)]  # to a model of one level of vectors
LATENT = [tag for tag in APPLY if tag.startswith("latent/")]


class Mallinfo2(ctypes.Structure):
    """What glibc says of its memory, all in bytes or numbers of blocks."""

    names = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")
    _fields_ = [(name, ctypes.c_size_t) for name in names]


def memory_in_use():
    """Bytes given out and not given back. The resident memory also has the holes between them, which come and go."""
    LIBC.mallinfo2.restype = Mallinfo2
    info = LIBC.mallinfo2()
    return info.uordblks + info.hblkhd


@pytest.fixture
def fit(compose, image_folder, tmp_path):
    """Trains for some epochs with pictures of these options; returns the folder and the trained module."""

    def train(*overrides, epochs=1, with_pictures=True, **options):
        torch.manual_seed(0)
        config = compose(f"data.root={image_folder}", "data=images", "data.channels=1", f"epochs={epochs}", *overrides)
        source = build(config, "data")
        data = source.load()
        module = VAEModule(
            build_model(config, data.shape, len(data.classes)),
            build(config, "objective"),
            build(config, "optimizer"),
            build(config, "scheduler"),
            total_steps=100,
            about=about(config, data),
        )
        scalars = Scalars(2)
        loader = BatchLoader(data.test, 4)
        drawing = [Pictures(tmp_path, loader, scalars, **options)] if with_pictures else []
        trainer = pl.Trainer(
            max_epochs=epochs,
            accelerator="cpu",
            logger=RunLogger(tmp_path),
            callbacks=[scalars, *drawing],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            log_every_n_steps=1,
        )
        trainer.fit(module, Strides(BatchLoader(data.train, 16)), BatchLoader(data.val, 16))
        for callback in drawing:
            callback.close(trainer, module, epochs)
        return tmp_path, module

    return train


def events(folder):
    accumulator = EventAccumulator(str(folder), size_guidance={"images": 0})
    accumulator.Reload()
    return accumulator


def files(folder):
    figures = folder / "figures"
    return {path.relative_to(figures).as_posix() for path in figures.rglob("*.*")}


def scene(
    shape=(1, 12, 10),
    latent_dim=2,
    classes=("a", "b"),
    prior="isotropic",
    n=40,
    compose=None,
    history=(),
    conditional=False,
    more=(),
):
    """An untrained model and noise."""
    overrides = ("data=strokes", f"latent_dim={latent_dim}", f"prior={prior}", f"conditional={conditional}", *more)
    if overrides not in COMPOSED:
        COMPOSED[overrides] = compose(*overrides)
    config = COMPOSED[overrides]
    part = Split(torch.randint(0, 256, (n, *shape), dtype=torch.uint8), torch.arange(n) % max(1, len(classes)))
    data = Dataset("noise", part, part, part, classes)
    return Scene(
        build_model(config, shape, len(classes)), BatchLoader(part, 16), about(config, data), 7, history=history
    )


def test_names_are_tags_or_their_ends():
    assert select(None) == TAGS and select([]) == ()
    assert select(["losses", "latent/manifold", "manifold"]) == ("latent/manifold", "curves/losses")
    with pytest.raises(
        ValueError, match=r"^figures.only=mainfold: must be one of manifold, clusters, .*, losses, levels$"
    ):
        select(["mainfold"], "figures.only")


@pytest.mark.parametrize(
    ("every", "expected"), [(None, [1, 2, 5, 10, 20, 50, 100, 200]), (60, [60, 120, 180]), (100, [100, 200])]
)
def test_the_epochs_that_are_drawn(every, expected):
    callback = Pictures(Path(), UNREAD, UNREAD, every)
    assert [epoch for epoch in range(1, 201) if callback._is_due(epoch)] == expected


def test_what_is_drawn_in_the_end_is_the_only_picture_of_the_last_step(fit):
    folder, _ = fit(epochs=3, every_n_epochs=1, only=["samples"])
    assert [each.step for each in events(folder).Images("images/samples")] == [4, 8, 12]


def test_an_autoencoder_has_no_picture_of_a_kl(fit, caplog):
    folder, _ = fit("objective=autoencoder")
    assert not [record for record in caplog.records if record.name.startswith("vae")]
    assert files(folder) == {f"{tag}.png" for tag in APPLY} - {"latent/activity.png", "latent/true_posterior.png"}


def test_the_traversal_says_what_the_other_dimensions_do(compose):
    view = scene(latent_dim=3, prior="correlated", compose=compose)
    along = rasterise(view.draw("traversal"))
    view.walk = "conditional"
    assert not np.array_equal(rasterise(view.draw("traversal")), along)
    (axes,) = view.draw("traversal").axes
    assert axes.get_xlabel().endswith("all other dimensions follow at the prior's conditional mean")
    with pytest.raises(ValueError, match=r"^figures\.walk=round: must be one of axis, conditional"):
        Pictures(Path(), UNREAD, UNREAD, walk="round")


def test_traversals_begin_at_several_images_and_the_most_used_dimension(compose):
    view = scene(latent_dim=12, compose=compose)
    (axes,) = view.draw("traversal").axes
    assert len(axes.images) == 3
    dims = kl_per_dimension(view.codes, view.prior).argsort(descending=True)[:10].tolist()
    used = variance(view.codes.means) > 0.01
    names = [axis_name(dim) + ("" if used[dim] else ", inactive") for dim in dims]
    assert [label.get_text() for label in axes.get_yticklabels()] == names and dims != sorted(dims)


def test_a_wrong_grid_is_refused():
    with pytest.raises(ValueError, match=r"^figures\.grid=round: must be one of whitened, square, quantile"):
        Pictures(Path(), UNREAD, UNREAD, grid="round")


def test_every_picture_is_in_the_event_file_and_on_disk(fit):
    folder, _ = fit(epochs=3)
    assert files(folder) == {f"{tag}.png" for tag in APPLY}
    accumulator = events(folder)
    in_tensorboard = set(APPLY) - {"curves/losses"}  # which it draws itself
    assert set(accumulator.Tags()["images"]) == in_tensorboard
    per_epoch = 4  # steps: 49 training images in batches of 16
    for tag in in_tensorboard:
        written = accumulator.Images(tag)
        assert [each.step for each in written] == [per_epoch * epoch for epoch in (1, 2, 3)]
        in_event = np.asarray(Image.open(io.BytesIO(written[-1].encoded_image_string)))
        assert np.array_equal(in_event, np.asarray(Image.open(folder / "figures" / f"{tag}.png")))


def test_of_an_autoencoder_only_the_means_are_told(fit):
    folder, _ = fit("objective=autoencoder", only=["manifold"])
    assert {tag for tag in events(folder).Tags()["scalars"] if tag.startswith("latent/")} == {"latent/active_units"}
    assert events(folder).Tags()["histograms"] == ["latent/means"]


@pytest.mark.parametrize(
    ("overrides", "left_out", "more"),
    [
        (["latent_dim=1"], {"latent/pairs"}, set()),
        (["latent_dim=3", "prior=correlated"], {"latent/true_posterior"}, {"latent/clusters.gif"}),
        (
            ["latent_dim=4", "prior=correlated", "posterior=tied", "data.binarize=dynamic"],
            {"latent/true_posterior"},
            set(),
        ),
    ],
)
def test_other_models_have_the_pictures_that_apply(fit, caplog, overrides, left_out, more):
    folder, _ = fit(*overrides)
    assert not [record for record in caplog.records if record.name.startswith("vae")]
    assert files(folder) == {f"{tag}.png" for tag in APPLY if tag not in left_out} | more
    if more:
        film = GifImageFile(folder / "figures" / "latent" / "clusters.gif")
        assert film.n_frames > 30 and film.info["loop"] == 0
        assert (folder / "figures" / "latent" / "clusters.gif").stat().st_size < 3e6


def test_only_some_pictures(fit):
    folder, _ = fit(only=["manifold", "latent/covariance"], grid="quantile")
    assert files(folder) == {"latent/manifold.png", "latent/covariance.png"}


def test_no_pictures(fit):
    folder, _ = fit(only=[])
    assert not (folder / "figures").exists() and not events(folder).Tags()["images"]


def test_a_picture_that_fails_is_skipped(fit, monkeypatch, caplog):
    def fail(scene):
        raise RuntimeError("no paint")

    monkeypatch.setitem(pictures.DRAW, "latent/clusters", fail)
    with caplog.at_level(logging.ERROR):
        folder, _ = fit()
    assert files(folder) == {f"{tag}.png" for tag in APPLY if tag != "latent/clusters"}
    (record,) = caplog.records
    assert "latent/clusters" in record.getMessage() and "no paint" in str(record.exc_info[1])


def test_pictures_do_not_change_the_training(fit):
    _, plain = fit(epochs=2, with_pictures=False)
    _, drawn = fit(epochs=2, every_n_epochs=1, only=["samples", "clusters"])
    for a, b in zip(plain.state_dict().values(), drawn.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert drawn.training == plain.training


def test_drawing_leaves_random_numbers_and_mode_alone(compose):
    for training in (True, False):
        view = scene(compose=compose)
        view.vae.train(training)
        before = torch.get_rng_state()
        view.draw("images/samples")
        assert torch.equal(torch.get_rng_state(), before) and view.vae.training == training


@pytest.mark.parametrize("conditional", [False, True])
def test_levels_are_drawn_from_the_noise_that_they_share(compose, conditional, monkeypatch):
    row = {f"{part}/{term}": 1.0 for part in ("train", "val") for term in ("loss", "total", "recon", "kl")}
    history = [{"epoch": 1, **row, **{f"val/kl_level_{level}": level / 6 for level in (1, 2, 3)}}]
    maps = ["backbone=resnet", "backbone.channels=[8,8]", "backbone.depth=1", "backbone.below=[[6,2],[12,1]]"]
    view = scene((1, 12, 12), 2, compose=compose, history=history, conditional=conditional, more=maps)
    assert set(OF_LEVELS) < set(view.tags) and "latent/true_posterior" not in view.tags
    for level in view.vae.levels:
        awake(level)
    seen: list = []
    decode = view.decode
    monkeypatch.setattr(view, "decode", lambda z, labels=None: (seen.append(z), decode(z, labels))[1])
    for tag in OF_LEVELS:
        view.draw(tag)
    redrawn, *upper, warm = seen
    redrawn, top, both = redrawn.unflatten(0, (3, 12)), 2, 2 + 2 * 6 * 6
    assert len(redrawn[0, :, :top].unique(dim=0)) == 12
    assert len(redrawn[1, :, :top].unique(dim=0)) == 1 and len(redrawn[1].unique(dim=0)) == 12
    assert len(redrawn[2, :, :top].unique(dim=0)) == 1 and len(redrawn[2].unique(dim=0)) == 12
    assert torch.equal(redrawn[0, 0, :top], redrawn[1, 0, :top])
    assert [z.shape[-1] for z in upper] == [top, both, both + 12 * 12]
    of_top = warm.unflatten(0, (4, 12))[..., :top] / torch.tensor(TEMPERATURES)[:, None, None]
    assert torch.allclose(of_top, of_top[:1].expand_as(of_top))
    if not conditional:  # else each column is of a class of its own
        assert len(redrawn[2, :, :both].unique(dim=0)) == 1


@pytest.mark.parametrize(
    ("more", "conditional"),
    [
        (["backbone=conv", "prior=autoregressive", "posterior=codebook"], True),
        (["posterior=residual_codebook", "posterior.stages=2", "prior=autoregressive"], False),
        (["posterior=gumbel", "prior=uniform"], True),
    ],
)
def test_codes_have_pictures_of_their_own(compose, more, conditional):
    row = {f"{part}/{term}": 1.0 for part in ("train", "val") for term in ("loss", "total", "recon", "kl")}
    prior = next(word for word in more if word.startswith("prior=")).partition("=")[2]
    more = [word for word in more if not word.startswith("prior=")]
    view = scene(
        (3, 12, 10), 2, prior=prior, compose=compose, history=[{"epoch": 1, **row}], conditional=conditional, more=more
    )
    assert {*view.tags} == {
        *CODES_ALONE,
        *(f"images/{name}" for name in ("reconstructions", "samples", "interpolation")),
    } | {"curves/losses"}
    for tag in view.tags:
        assert rasterise(view.draw(tag)).std() > 0
    with pytest.raises(ValueError, match="picture=latent/manifold: there is none of this run"):
        view.draw("manifold")


def test_the_middle_of_each_code_s_map_is_that_code(compose, monkeypatch):
    more = ["backbone=conv", "posterior=codebook", "posterior.codes=9"]
    view = scene((1, 12, 10), 2, prior="uniform", compose=compose, more=more)
    seen: list = []
    decode = view.decode
    monkeypatch.setattr(view, "decode", lambda z, labels=None: (seen.append(z), decode(z, labels))[1])
    view.draw("latent/codebook")
    coding = view.vae.posterior
    index = coding.nearest(coding.places_of(seen[0]))[..., 0]  # (codes, places) of a map of 3×3
    assert sorted(index[:, 4].tolist()) == list(range(9))
    others = torch.cat([index[:, :4], index[:, 5:]], 1)
    assert len(others.unique()) == 1 and others[0, 0] == index[0, 4]


def test_the_same_model_gives_the_same_picture(compose):
    view = scene(compose=compose)
    one, two = (rasterise(view.draw("images/samples")) for _ in range(2))
    assert np.array_equal(one, two)


def test_a_picture_is_drawn_by_its_tag_or_the_end_of_that(compose):
    view = scene(latent_dim=3, compose=compose)
    one, two = (rasterise(view.draw(name)) for name in ("images/samples", "samples"))
    assert np.array_equal(one, two)
    with pytest.raises(ValueError, match=r"^picture=mainfold: must be one of manifold, "):
        view.draw("mainfold")
    with pytest.raises(ValueError, match=r"^picture=latent/true_posterior: there is none of this run$"):
        view.draw("true_posterior")


@pytest.mark.parametrize("tag", [tag for tag in APPLY if tag.startswith("images/") or tag == "latent/manifold"])
@pytest.mark.parametrize("latent_dim", [2, 3])
def test_a_picture_decodes_at_most_once(compose, tag, latent_dim):
    view = scene(latent_dim=latent_dim, compose=compose)
    calls = []
    view.vae.backbone.decoder.register_forward_hook(lambda *_: calls.append(1))
    view.draw(tag)
    assert len(calls) == 1


@pytest.mark.parametrize("latent_dim", [1, 3, 5])
@pytest.mark.parametrize(
    ("shape", "classes"), [((3, 20, 28), ()), ((1, 12, 30), tuple(f"the class {i}" for i in range(26)))]
)
def test_every_shape_of_data_is_drawn_whole(compose, latent_dim, shape, classes):
    row = {f"{part}/{term}": 1.0 for part in ("train", "val") for term in ("loss", "total", "recon", "kl")}
    view = scene(shape, latent_dim, classes, "correlated", 60, compose, [{"epoch": 1, **row}])
    for tag in view.tags:
        figure = view.draw(tag)
        box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height, tag
        assert figure.texts[0].get_text() == f"noise · latent_dim {latent_dim} · correlated prior · β 1 · epoch 7"


class Mixture(Prior):
    def __init__(self, latent_dim):
        super().__init__()
        self.means = nn.Parameter(torch.stack([torch.full((latent_dim,), -2.0), torch.full((latent_dim,), 2.0)]))

    def forward(self, state=None):
        return MixtureSameFamily(Categorical(torch.ones(2)), Independent(Normal(self.means, 0.5), 1))


@pytest.mark.parametrize(("latent_dim", "grid"), [(1, "quantile"), (2, "quantile"), (3, "whitened"), (4, "quantile")])
def test_a_prior_that_is_not_gaussian_is_drawn(compose, latent_dim, grid):
    view = scene(latent_dim=latent_dim, compose=compose)
    view.vae.levels[0].prior, view.grid = Mixture(latent_dim), grid
    for tag in LATENT:
        if tag in view.tags:
            view.draw(tag)
    if latent_dim == 2:
        (axes,) = view.draw("latent/clusters").axes
        assert len(axes.lines) > 4  # two contours where an ellipse would be one


@pytest.mark.parametrize("latent_dim", [1, 2, 3, 5])
@pytest.mark.parametrize("count", [2, 7, 26])
def test_a_conditional_model_has_a_row_for_each_class(compose, latent_dim, count):
    classes = tuple(f"class {i}" for i in range(count))
    view = scene((1, 12, 10), latent_dim, classes, n=3 * count, compose=compose, conditional=True)
    for tag in view.tags:
        figure = view.draw(tag)
        box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height, tag
        assert "isotropic prior · conditional" in figure.texts[0].get_text()
        names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
        if tag == "images/samples":
            assert names == list(classes[:12])
        if tag == "images/interpolation":
            assert names == [f"{name} → {name}" for name in classes[:12]]
        if tag == "latent/manifold":
            assert [axes.get_title() for axes in figure.axes] == list(classes[:12])
            rows, columns = (1, 20) if latent_dim == 1 else (10, 10)  # of tiles 12 × 10 pixels
            assert np.asarray(figure.axes[0].images[0].get_array()).shape[:2] == (12 * rows, 10 * columns)


def test_the_samples_of_a_row_are_of_its_class(compose):
    view = scene(compose=compose, conditional=True)
    asked = []
    view.vae.backbone.decoder.register_forward_pre_hook(lambda _, given: asked.append(given[0]))
    view.draw("images/samples")
    z, one_hot = asked[0].split([2, 2], 1)
    assert torch.equal(one_hot.argmax(1), torch.arange(2).repeat_interleave(12))
    assert torch.equal(z[:12], z[12:])  # a column has one z


def test_no_figure_stays_alive(compose):
    view = scene(compose=compose)
    for tag in view.tags:
        rasterise(view.draw(tag))
    gc.collect()
    assert not [each for each in gc.get_objects() if type(each) is Picture]  # isinstance would wake torch
    assert not Gcf.figs


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(LIBC, "mallinfo2"), reason="only glibc says how much memory is in use")
def test_memory_does_not_grow_over_100_draws(compose):
    view = scene(compose=compose)
    levels, blocks = [], []
    for _ in range(100 // len(LATENT)):
        for tag in LATENT:
            rasterise(view.draw(tag))
        gc.collect()
        levels.append(memory_in_use())
        blocks.append(sys.getallocatedblocks())  # Python's small objects, which it keeps apart
    # Once the first pictures have filled their caches.
    assert levels[-1] - levels[3] < 2**20  # bytes of 157 MiB
    assert blocks[-1] - blocks[3] < 10_000  # of 1.8 million
