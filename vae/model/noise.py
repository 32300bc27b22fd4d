"""Noise that does not depend on how many processes share a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode


class ShareOfNoise(TorchFunctionMode):
    """Inside, Gaussian noise for a `share` of a batch's latents is that share of what is drawn for all `size` of them.

    Processes whose random streams are in the same state so draw together what one process would, and remain there.
    """

    def __init__(self, share: slice, size: int):
        super().__init__()
        self.share = share
        self.size = size

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is Tensor.normal_ and args[0].shape[-2:-1] == (self.share.stop - self.share.start,):
            noise = args[0]  # (…, share, latent_dim)
            whole = noise.new_empty(*noise.shape[:-2], self.size, noise.shape[-1])
            return noise.copy_(func(whole, *args[1:], **kwargs)[..., self.share, :])
        return func(*args, **kwargs)
