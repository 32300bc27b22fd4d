"""The project's own small classifier, trained on the data's own images: its features tell sets of images apart.

Distances between these features compare models of one data set. They are no Inception distances (FID, KID): those are
of another network, and their numbers have nothing to do with these.
"""

from __future__ import annotations

import hashlib
import io
import logging
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vae.common.seeding import derive
from vae.common.terminal import bar_of_long
from vae.data.base import Split
from vae.data.cache import cached

log = logging.getLogger(__name__)

VERSION = 1  # of network and training together: raise it with any change, so that nothing old is taken from a cache
FEATURES = 64
STEPS, BATCH, RATE = 1200, 128, 4e-3


class Classifier(nn.Module):
    """Two strided convolutions, a dense layer of 64 features, and the logits of the classes.

    With rectified units a quarter of the features would be zero for all images.
    """

    def __init__(self, shape: tuple[int, int, int], classes: int):
        super().__init__()
        channels, height, width = shape
        pixels = -(-height // 4) * -(-width // 4)  # each convolution halves a side and rounds up
        self.body = nn.Sequential(
            nn.Conv2d(channels, 16, 3, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.SiLU(),
            nn.Flatten(),
            nn.Linear(32 * pixels, FEATURES),
            nn.SiLU(),
        )
        self.head = nn.Linear(FEATURES, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (batch, classes) of images in [0, 1], (batch, channels, height, width)."""
        return self.head(self.body(x))

    @torch.inference_mode()
    def features(self, images: Tensor) -> Tensor:
        """The last hidden layer, (n, 64), of images (n, channels, height, width), bytes or floats in [0, 1]."""
        return torch.cat([self.body(self._input(batch)) for batch in images.split(1000)])

    @torch.inference_mode()
    def classify(self, images: Tensor) -> Tensor:
        """The most probable class of each image, (n,)."""
        return self.head(self.features(images)).argmax(1)

    def _input(self, images: Tensor) -> Tensor:
        weight = self.head.weight
        return images.to(weight) if images.is_floating_point() else images.to(weight) / 255


def trained_classifier(part: Split, classes: int, cache_folder: str | Path, steps: int | None = None) -> Classifier:
    """A classifier of the training images, on the CPU: from the cache where one was trained on the very same, else new.

    Only for data that has classes. The caller's random states and gradient mode stay. Fewer `steps` than the usual
    `STEPS` make another classifier, whose features compare with nobody else's.
    """
    steps = STEPS if steps is None else steps
    if classes < 2:
        raise ValueError(f"{classes} classes: must be at least 2; data without classes has no classifier")
    shape = (part.images.shape[1], part.images.shape[2], part.images.shape[3])
    file = Path(cache_folder) / f"classifier-{_key(part, classes, steps)}.pt"

    def train() -> Classifier:
        log.info("training a classifier of these data, once, which may take a minute")
        classifier = _new(shape, classes)
        _train(classifier, part, steps)
        return classifier

    # Under inference mode there would be no gradients, and weights that stay without any.
    with torch.inference_mode(False), torch.enable_grad():
        return cached(file, lambda path: _loaded(path, shape, classes), train, _save)


def _key(part: Split, classes: int, steps: int) -> str:
    about = (VERSION, classes, tuple(part.images.shape)) + (() if steps == STEPS else (steps,))
    digest = hashlib.sha256(repr(about).encode())
    for tensor in (part.images, part.labels):
        digest.update(tensor.cpu().contiguous().numpy().data)
    return digest.hexdigest()[:32]


def _new(shape: tuple[int, int, int], classes: int) -> Classifier:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive("classifier"))  # not torch.manual_seed, which seeds GPUs as well
        return Classifier(shape, classes).float().eval()


def _loaded(file: Path, shape: tuple[int, int, int], classes: int) -> Classifier:
    classifier = _new(shape, classes)
    classifier.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    return classifier.requires_grad_(False)


def _save(file: Path, classifier: Classifier) -> None:
    content = io.BytesIO()  # on a full disk, torch.save itself raises anything but an OSError
    torch.save(classifier.state_dict(), content)
    file.write_bytes(content.getvalue())


def _train(classifier: Classifier, part: Split, steps: int) -> None:
    """A fixed number of steps, whatever the number of images; they come in a new order each time they are used up."""
    generator = torch.Generator().manual_seed(derive("classifier", "order"))
    optimizer = torch.optim.Adam(classifier.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    images, labels = part.images.cpu(), part.labels.cpu()
    size = min(BATCH, len(images))
    batches: list[Tensor] = []
    with bar_of_long("training a classifier", steps) as progress:
        for _ in range(steps):
            if not batches:
                order = torch.randperm(len(images), generator=generator)
                batches = list(order[: len(order) // size * size].split(size))
            index = batches.pop()
            loss = F.cross_entropy(classifier(classifier._input(images[index])), labels[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            progress.update()
    classifier.requires_grad_(False)
