"""What the runner is compared with: a hand-written loop, its matrix products alone, and Lightning's usual way."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from vae.data.base import Dataset

Product = tuple[int, int, int]  # (m, k) @ (k, n)


def networks(config: Mapping[str, Any]) -> tuple[nn.Sequential, nn.Sequential]:
    """Encoder to (batch, 2 latent_dim), means first, and decoder to logits, for images of 1×28×28."""
    latent_dim, backbone = config["latent_dim"], config["backbone"]
    encoder, decoder = nn.Sequential(), nn.Sequential()
    if backbone["_target_"].endswith("Dense"):
        a, b = backbone["hidden"]
        encoder.extend([nn.Flatten(), nn.Linear(784, a), nn.ReLU(True), nn.Linear(a, b), nn.ReLU(True)])
        encoder.append(nn.Linear(b, 2 * latent_dim))
        decoder.extend([nn.Linear(latent_dim, b), nn.ReLU(True), nn.Linear(b, a), nn.ReLU(True)])
        decoder.extend([nn.Linear(a, 784), nn.Unflatten(1, (1, 28, 28))])
        return encoder, decoder
    (a, b), hidden = backbone["channels"], backbone["hidden"]
    half, double = (3, 2, 1), (3, 2, 1, 1)  # kernel, stride, padding; output padding
    encoder.extend([ChannelsLast(), nn.Conv2d(1, a, *half), nn.ReLU(True), nn.Conv2d(a, b, *half), nn.ReLU(True)])
    encoder.extend([nn.Flatten(), nn.Linear(49 * b, hidden), nn.ReLU(True), nn.Linear(hidden, 2 * latent_dim)])
    decoder.extend([nn.Linear(latent_dim, 49 * b), nn.ReLU(True), nn.Unflatten(1, (b, 7, 7)), ChannelsLast()])
    decoder.extend([nn.ConvTranspose2d(b, b, *double), nn.ReLU(True), nn.ConvTranspose2d(b, a, *double), nn.ReLU(True)])
    decoder.append(nn.ConvTranspose2d(a, 1, 3, padding=1))
    for part in (encoder, decoder):
        part.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return encoder, decoder


class ChannelsLast(nn.Module):
    """Changes the memory layout only, into that of the convolutions' weights."""

    def forward(self, x: Tensor) -> Tensor:
        return x.contiguous(memory_format=torch.channels_last)


class HandLoop:
    """The default model with an isotropic prior and nothing around it, as fast as plain eager PyTorch has it."""

    def __init__(self, config: Mapping[str, Any], data: Dataset, device: str = "cpu"):
        assert data.val is not None
        self.train, self.val = (part.images.to(device) / 255 for part in (data.train, data.val))
        self.batch_size = config["data"]["batch_size"]
        self.encoder, self.decoder = (network.to(device) for network in networks(config))
        self.weights = [*self.encoder.parameters(), *self.decoder.parameters()]
        self.optimizer = torch.optim.Adam(self.weights, lr=config["optimizer"]["lr"], fused=True)

    def terms(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """recon and kl of a batch, in nats per image."""
        mean, log_var = self.encoder(x).chunk(2, 1)
        logits = self.decoder(mean + (0.5 * log_var).exp() * torch.randn_like(mean))
        recon = F.binary_cross_entropy_with_logits(logits, x, reduction="sum")
        kl = 0.5 * (mean.square() + log_var.exp() - 1 - log_var).sum()
        return recon / len(x), kl / len(x)

    def epoch(self) -> float:
        """Seconds of an epoch with its validation."""
        start = time.perf_counter()
        for index in torch.randperm(len(self.train), device=self.train.device).split(self.batch_size):
            self.step(self.train[index])
        with torch.inference_mode():
            for x in self.val.split(4 * self.batch_size):
                self.terms(x)
        if self.train.is_cuda:
            torch.cuda.synchronize()
        return time.perf_counter() - start

    def step(self, x: Tensor) -> None:
        """Train on a batch."""
        recon, kl = self.terms(x)
        self.optimizer.zero_grad()
        (recon + kl).backward()
        self.optimizer.step()


class HandGraph(HandLoop):
    """The same with its step in a CUDA graph."""

    def __init__(self, config: Mapping[str, Any], data: Dataset):
        super().__init__(config, data, "cuda")
        self.optimizer.param_groups[0]["capturable"] = True
        self.still = self.train[: self.batch_size].clone()
        self.graph: torch.cuda.CUDAGraph | None = None

    def step(self, x: Tensor) -> None:
        if self.graph is None:
            self.graph = self._recorded()
        if len(x) < self.batch_size:
            super().step(x)
        else:
            self.still.copy_(x)
            self.graph.replay()

    def _recorded(self) -> torch.cuda.CUDAGraph:
        graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                super().step(self.still)
        torch.cuda.current_stream().wait_stream(stream)
        with torch.cuda.graph(graph, stream=stream):
            super().step(self.still)
        return graph


class Products:
    """The matrix products of the hand-written loop's layers alone: a convolution's as if its patches were laid out."""

    SHARE = 10  # one in so many steps is measured

    def __init__(self, loop: HandLoop):
        self.steps = math.ceil(len(loop.train) / loop.batch_size)
        first, *others = forward_products(loop, loop.train[: loop.batch_size])
        validation = math.ceil(len(loop.val) / (4 * loop.batch_size)) / self.steps  # batches for each training step
        training = [backward_products(first)[1], *(each for other in others for each in backward_products(other))]
        training += [first, *others]  # the images themselves need no gradient
        self.factors = [(torch.randn(m, k), torch.randn(n, k).t()) for m, k, n in training]
        self.results = [torch.empty(len(a), b.shape[1]) for a, b in self.factors]
        # Validation is as many products of the forward pass as it has more images to take than a training step.
        flops = [sum(2 * m * k * n for m, k, n in products) for products in (training, [first, *others])]
        self.flops = flops[0] + 4 * validation * flops[1]
        self.more = self.flops / flops[0]

    def epoch(self) -> float:
        """Seconds that an epoch's multiplications take."""
        steps = max(1, self.steps // self.SHARE)
        start = time.perf_counter()
        for _ in range(steps):
            for (a, b), result in zip(self.factors, self.results, strict=True):
                torch.mm(a, b, out=result)
        return (time.perf_counter() - start) / steps * self.steps * self.more

    def rate(self, seconds: float) -> float:
        """GFLOP/s where an epoch takes so long."""
        return self.flops * self.steps / seconds / 1e9


@torch.no_grad()
def forward_products(loop: HandLoop, x: Tensor) -> list[Product]:
    """The product that each layer's forward pass is, for a batch x, in the layers' order."""
    found: list[Product] = []

    def note(layer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        if isinstance(layer, nn.Linear):
            found.append((len(output), layer.in_features, layer.out_features))
        elif isinstance(layer, nn.ConvTranspose2d):  # spreads each place of its input
            m = inputs[0].numel() // layer.in_channels
            found.append((m, layer.in_channels, layer.out_channels * math.prod(layer.kernel_size)))
        elif isinstance(layer, nn.Conv2d):  # gathers each place of its output
            m = output.numel() // layer.out_channels
            found.append((m, layer.in_channels * math.prod(layer.kernel_size), layer.out_channels))

    hooks = [layer.register_forward_hook(note) for layer in (*loop.encoder, *loop.decoder)]
    loop.terms(x)
    for hook in hooks:
        hook.remove()
    return found


def backward_products(product: Product) -> tuple[Product, Product]:
    """Those of the gradients by a layer's input and by its weights."""
    m, k, n = product
    return (m, n, k), (n, m, k)


class UsualLightning(pl.LightningModule):
    """The same model as Lightning's introductions have it: a DataLoader over tensors, `self.log` in every step."""

    def __init__(self, loop: HandLoop, folder: Path):
        super().__init__()
        self.loop = loop
        self.folder = folder
        self.networks = nn.ModuleList([loop.encoder, loop.decoder])

    def epoch(self) -> float:
        """Seconds of an epoch with its validation, without those that the trainer needs to start."""
        batch_size = self.loop.batch_size
        trainer = pl.Trainer(
            max_epochs=1,
            logger=TensorBoardLogger(self.folder),
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
        trainer.fit(
            self,
            DataLoader(TensorDataset(self.loop.train), batch_size, shuffle=True),
            DataLoader(TensorDataset(self.loop.val), 4 * batch_size),
        )
        return self.seconds

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return self._step(batch, "train")

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self._step(batch, "val")

    def _step(self, batch: list[Tensor], stage: str) -> Tensor:
        recon, kl = self.loop.terms(batch[0])
        for name, value in (("loss", recon + kl), ("recon", recon), ("kl", kl)):
            self.log(f"{stage}/{name}", value)
        return recon + kl

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=1e-3)

    def on_train_epoch_start(self) -> None:
        self.start = time.perf_counter()

    def on_train_end(self) -> None:
        self.seconds = time.perf_counter() - self.start
