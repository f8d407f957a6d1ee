"""Modules of the transposed convolution."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from structops.nn import ConvTranspose2d, FusedConvTranspose2d


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


class TestModules:
    @pytest.mark.parametrize("output_size", [None, (11, 12), [2, 4, 12, 11]])
    def test_torchs_own_results_and_state(self, output_size):
        theirs = nn.ConvTranspose2d(6, 4, (4, 3), (2, 2), 1, 0, 2, dilation=(1, 2))
        ours = ConvTranspose2d(6, 4, (4, 3), (2, 2), 1, 0, 2, dilation=(1, 2))
        ours.load_state_dict(theirs.state_dict())
        assert repr(ours) == repr(theirs)
        x = torch.randn(2, 6, 5, 5)
        if output_size is not None and len(output_size) == 2:
            output_size = (10, 12)
        elif output_size is not None:
            output_size = [2, 4, 11, 11]
        torch.testing.assert_close(ours(x, output_size), theirs(x, output_size))
        torch.testing.assert_close(ours(x[0]), theirs(x[0]))
        with pytest.raises(ValueError, match="requested an output size"):
            ours(x, (100, 100))

    def test_fused_is_its_formula(self):
        layer = FusedConvTranspose2d(3, 5, 2, 2, affine=True, activation="leaky_relu", negative_slope=0.2)
        nn.init.normal_(layer.scale), nn.init.normal_(layer.shift)
        x, skip = torch.randn(2, 3, 4, 4), torch.randn(2, 5, 8, 8)
        linear = F.conv_transpose2d(x, layer.weight, layer.bias, 2)
        linear = linear * layer.scale[:, None, None] + layer.shift[:, None, None]
        for residual in (skip, skip[:, :, :1, :1], skip.double()):  # the kernel takes the first
            torch.testing.assert_close(layer(x, residual), F.leaky_relu(linear + residual, 0.2))
        torch.testing.assert_close(layer(x), F.leaky_relu(linear, 0.2))
        layer.residual_after_activation = True
        torch.testing.assert_close(layer(x, 2.0), F.leaky_relu(linear, 0.2) + 2)
        with torch.autocast("cpu", torch.bfloat16):
            assert layer(x, skip).dtype == torch.float32  # as torch: bfloat16 and a float32 skip
            assert layer(x, skip.bfloat16()).dtype == torch.bfloat16
        layer(x, skip).square().sum().backward()
        assert all(p.grad is not None for p in layer.parameters())
        with pytest.raises(ValueError, match="activation must be one of none, relu"):
            FusedConvTranspose2d(3, 5, 2, activation="tanh")

    def test_made_without_memory(self):
        """How torch's own tools start a large model: on the meta device, and then every module's reset_parameters."""
        layer = FusedConvTranspose2d(3, 5, 2, affine=True, device="meta").to_empty(device="cpu")
        for parameter in layer.parameters():
            parameter.data.fill_(7)
        layer.reset_parameters()
        assert (layer.scale == 1).all()
        assert (layer.shift == 0).all()
        assert (layer.weight.abs() < 1).all()
