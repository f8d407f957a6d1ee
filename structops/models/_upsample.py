"""The doubling of a map, as segmentation heads and feature pyramids write it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from structops.ops import conv_transpose2d

_ACTIVATIONS = {"relu": torch.relu, "sigmoid": torch.sigmoid}


class Upsample(nn.Module):
    """A transposed convolution of 2 x 2 with stride 2, its batch norm or bias, an activation, and a lateral map added.

    One kernel, unless in training: there the batch norm needs the convolution's own output for its statistics.
    """

    def __init__(self, inputs: int, outputs: int, activation: str = "relu", bn_eps: float | None = None) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(inputs, outputs, 2, 2, bias=bn_eps is None)
        self.bn = nn.BatchNorm2d(outputs, eps=bn_eps) if bn_eps is not None else None
        self.activation = activation

    def forward(self, x: Tensor, lateral: Tensor | None = None) -> Tensor:
        if self.training and self.bn is not None:
            return self.in_steps(x, lateral)
        scale, shift = self._folded()
        return conv_transpose2d(
            x,
            self.conv.weight,
            self.conv.bias,
            stride=2,
            scale=scale,
            shift=shift,
            activation=self.activation,
            residual=lateral,
            residual_after_activation=True,
        )

    def in_steps(self, x: Tensor, lateral: Tensor | None = None) -> Tensor:
        """The same, each step by torch."""
        x = self.conv(x)
        x = self.bn(x) if self.bn is not None else x
        x = _ACTIVATIONS[self.activation](x)
        return x + lateral if lateral is not None else x

    def _folded(self) -> tuple[Tensor | None, Tensor | None]:
        """The batch norm with its running statistics, as a factor and a summand."""
        if self.bn is None:
            return None, None
        mean, variance = self.bn.running_mean, self.bn.running_var
        assert mean is not None
        assert variance is not None
        scale = self.bn.weight * torch.rsqrt(variance + self.bn.eps)
        return scale, self.bn.bias - mean * scale
