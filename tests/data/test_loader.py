from typing import Any

import pytest
import torch
from torch import Tensor

from vae.data.base import Split
from vae.data.loader import BatchLoader

COUNT = 23


@pytest.fixture
def part() -> Split:
    """Image i is of the grey 10 i, its label is i."""
    index = torch.arange(COUNT)
    return Split((10 * index).byte().view(-1, 1, 1, 1).expand(-1, 3, 2, 4).contiguous(), index)


@pytest.fixture
def uneven() -> Split:
    """Images of which none is its own mirror image."""
    return Split(torch.arange(COUNT * 24).remainder(251).byte().view(COUNT, 3, 2, 4), torch.arange(COUNT))


NOISE: list[dict[str, Any]] = [{}, {"dynamic": True}, {"flip": True}, {"dynamic": True, "flip": True}]


def grey(count: int, level: int) -> Split:
    return Split(torch.full((count, 1, 10, 10), level, dtype=torch.uint8), torch.zeros(count, dtype=torch.int64))


def order(loader: BatchLoader) -> list[int]:
    return torch.cat([labels for _, labels in loader]).tolist()


def images(loader: BatchLoader) -> Tensor:
    return torch.cat([batch for batch, _ in loader])


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize(("batch_size", "last"), [(1, 1), (5, 3), (23, 23), (22, 1), (100, 23)])
def test_every_image_once_with_its_label_in_whole_batches(part, batch_size, last, shuffle):
    loader = BatchLoader(part, batch_size, shuffle=shuffle)
    batches = list(loader)
    assert len(batches) == len(loader) == -(-COUNT // batch_size)
    assert [len(batch) for batch, _ in batches] == [batch_size] * (len(loader) - 1) + [last]
    assert sorted(order(loader)) == list(range(COUNT))
    for batch, labels in batches:
        assert batch.dtype == torch.float32 and batch.shape[1:] == (3, 2, 4) and batch.shape[:1] == labels.shape
        assert torch.allclose(batch, (10 * labels / 255).view(-1, 1, 1, 1).expand_as(batch))
        assert batch.min() >= 0 and batch.max() <= 1


def test_black_is_0_and_white_is_1():
    assert images(BatchLoader(grey(2, 0), 2)).unique().tolist() == [0.0]
    assert images(BatchLoader(grey(2, 255), 2)).unique().tolist() == [1.0]


def test_the_order_depends_on_seed_and_epoch_alone(part):
    orders = {}
    for seed in (0, 1):
        for epoch in (0, 1, 2):
            torch.manual_seed(torch.seed())
            loader = BatchLoader(part, 4, seed=seed, shuffle=True)
            loader.start_epoch(epoch)
            orders[seed, epoch] = order(loader)
            assert order(loader) == orders[seed, epoch]  # a second pass, and whatever torch's own state is
            later = BatchLoader(part, 7, seed=seed, shuffle=True)
            later.start_epoch(epoch)
            assert order(later) == orders[seed, epoch]
    assert len(set(map(tuple, orders.values()))) == 6
    assert tuple(range(COUNT)) not in set(map(tuple, orders.values()))
    assert order(BatchLoader(part, 4)) == list(range(COUNT))


def test_the_global_state_is_left_alone(part):
    before = torch.get_rng_state()
    order(BatchLoader(part, 4, shuffle=True, dynamic=True))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("level", [0, 51, 128, 230, 255])
def test_draws_are_black_or_white_with_the_grey_as_their_mean(level, mean_is):
    drawn = images(BatchLoader(grey(200, level), 64, dynamic=True))
    assert set(drawn.unique().tolist()) <= {0.0, 1.0}
    mean_is(drawn.flatten().double(), torch.tensor(level / 255, dtype=torch.float64))
    assert 0 < level < 255 or len(drawn.unique()) == 1


@pytest.mark.parametrize("shuffle", [False, True])
def test_draws_are_fresh_each_epoch_and_the_same_where_the_epoch_is(shuffle):
    loader = BatchLoader(grey(20, 128), 6, seed=3, shuffle=shuffle, dynamic=True)
    epochs = []
    for epoch in range(3):
        loader.start_epoch(epoch)
        epochs.append(images(loader))
        assert torch.equal(images(loader), epochs[-1])
    assert not torch.equal(epochs[0], epochs[1]) and not torch.equal(epochs[1], epochs[2])
    assert torch.equal(images(BatchLoader(grey(20, 128), 6, seed=3, shuffle=shuffle, dynamic=True)), epochs[0])
    assert not torch.equal(images(BatchLoader(grey(20, 128), 6, seed=4, shuffle=shuffle, dynamic=True)), epochs[0])
    assert len(epochs[0].unique(dim=0)) == 20  # no two images share their draws


def mirrored(loader: BatchLoader, part: Split) -> list[bool]:
    """Whether each image came mirrored; each came as it is or mirrored."""
    found: list[bool] = []
    for batch, labels in loader:
        plain = part.images[labels] / 255
        same, turned = ((batch == each).flatten(1).all(1) for each in (plain, plain.flip(-1)))
        assert batch.dtype == torch.float32 and (same ^ turned).all()
        found += turned.tolist()
    return found


def test_half_of_the_images_are_mirrored_anew_in_each_epoch(uneven, mean_is):
    assert not any(mirrored(BatchLoader(uneven, 6, seed=3, shuffle=True), uneven))
    loader = BatchLoader(uneven, 6, seed=3, shuffle=True, flip=True)
    epochs = []
    for epoch in range(40):
        loader.start_epoch(epoch)
        epochs.append(mirrored(loader, uneven))
        assert mirrored(loader, uneven) == epochs[-1]
    assert len({tuple(each) for each in epochs}) == 40
    mean_is(torch.tensor(epochs).flatten().double(), torch.tensor(0.5).double())
    assert order(BatchLoader(uneven, 6, seed=3, shuffle=True)) == order(BatchLoader(uneven, 6, 3, True, flip=True))


@pytest.mark.parametrize("noise", NOISE)
@pytest.mark.parametrize("stop", [0, 1, 3, 5])
def test_a_stopped_pass_goes_on_with_what_was_left(uneven, stop, noise):
    def loader() -> BatchLoader:
        return BatchLoader(uneven, 5, seed=2, shuffle=True, **noise)

    whole = loader()
    whole.start_epoch(4)
    batches = list(whole)
    stopped = loader()
    stopped.start_epoch(4)
    serving = iter(stopped)
    for _ in range(stop):
        next(serving)
    again = loader()
    again.load_state_dict(stopped.state_dict())
    rest = list(again)
    assert len(rest) == 5 - stop
    for found, expected in zip(rest, batches[stop:], strict=True):
        assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])
    again.start_epoch(5)
    assert len(list(again)) == 5


@pytest.mark.parametrize("noise", NOISE)
@pytest.mark.parametrize("processes", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("batch_size", [1, 2, 3, 5, 8, 11, 22, 23, 100])  # the last batches have 1, 2, 3, … images
def test_processes_share_every_batch(uneven, batch_size, processes, noise):
    def loader() -> BatchLoader:
        return BatchLoader(uneven, batch_size, seed=2, shuffle=True, **noise)

    loaders = [loader().of_process(rank, processes) for rank in range(processes)]
    per_process = [list(each) for each in loaders]
    for index, (images, labels) in enumerate(loader()):
        shares = [each.share(index) for each in loaders]
        served = [batches[index] for batches in per_process]  # every process takes every step
        assert all(len(share_images) == len(share_labels) > 0 for share_images, share_labels in served)
        counting = [batch for batch, share in zip(served, shares, strict=True) if share.weight]
        assert torch.equal(torch.cat([share_images for share_images, _ in counting]), images)  # each image exactly once
        assert torch.equal(torch.cat([share_labels for _, share_labels in counting]), labels)
        for share, (share_images, _) in zip(shares, served, strict=True):
            assert share.size == len(images) and torch.equal(images[share.images], share_images)
        sizes = [len(share_images) for share_images, _ in counting]
        assert max(sizes) - min(sizes) <= 1 and len(sizes) == min(processes, len(images))
        weighted = [
            share.weight * share_labels.double().mean() for share, (_, share_labels) in zip(shares, served, strict=True)
        ]
        assert sum(weighted) / processes == pytest.approx(labels.double().mean())


def test_a_process_goes_on_where_it_was(uneven):
    def loader() -> BatchLoader:
        return BatchLoader(uneven, 5, seed=2, shuffle=True, dynamic=True, flip=True).of_process(1, 2)

    whole = list(loader())
    stopped, again = loader(), loader()
    serving = iter(stopped)
    for _ in range(3):
        next(serving)
    again.load_state_dict(stopped.state_dict())
    for found, expected in zip(again, whole[3:], strict=True):
        assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])


def test_the_loader_of_a_process_leaves_the_whole_one_alone(part):
    whole = BatchLoader(part, 5)
    share = whole.of_process(1, 2)
    assert share.images is whole.images
    share.start_epoch(3)
    assert len(next(iter(share))[0]) == 2 and len(next(iter(whole))[0]) == 5 and whole.epoch == 0
