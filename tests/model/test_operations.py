"""Lists of operations: what is in them is run by the page's and by C's tests; here, what is refused."""

import pytest
from torch import nn

from vae.model.operations import operations
from vae.model.resnet import Resnet


def test_layers_that_only_torch_can_run_are_refused():
    with pytest.raises(ValueError, match=r"backbone: only torch can run the layer Tanh; it must be one of"):
        operations(nn.Sequential(nn.Linear(2, 3), nn.Tanh()))
    resnet = Resnet((1, 9, 8), 2, channels=[4], depth=1, groups=2, attention=[])
    for network in (resnet.encoder, resnet.decoder):
        with pytest.raises(
            ValueError, match=r"^backbone: only torch can run the layer Residual; it must be .*Unflatten$"
        ):
            operations(network)
    with pytest.raises(ValueError, match="convolutions must be without groups"):
        operations(nn.Conv2d(2, 2, 3, groups=2))
