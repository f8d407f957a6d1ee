"""Ways to make a map ``[N, C, H, W]`` larger, from a copy of each pixel to learned kernels; ``docs/upsampling.md``
shows them side by side.

Every module is called with the map, and stretches it by a whole factor. :class:`torch.nn.MaxUnpool2d` takes the
indices besides, which ``torch.nn.MaxPool2d(..., return_indices=True)`` remembered; the learned one is
:class:`structops.nn.ConvTranspose2d`.
"""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral

import torch
from torch import nn
from torch.nn import MaxUnpool2d

from structops._layout import memory_format
from structops.nn.conv_transpose2d import ConvTranspose2d

__all__ = ["BedOfNailsUpsample2d", "BilinearUpsample2d", "MaxUnpool2d", "NearestUpsample2d", "bilinear_kernel_"]


def _pair(factor: int | Sequence[int], name: str = "scale_factor") -> tuple[int, int]:
    pair = (factor, factor) if isinstance(factor, Integral) else tuple(factor) if isinstance(factor, Sequence) else ()
    if len(pair) != 2 or not all(isinstance(n, Integral) for n in pair):
        raise ValueError(f"{name} must be a whole number, or (height, width), got {factor!r}")
    height, width = (int(n) for n in pair)
    if height < 1 or width < 1:
        raise ValueError(f"{name} must be at least 1, got {factor}")
    return height, width


class _Upsample2d(nn.Module):
    def __init__(self, scale_factor: int | Sequence[int]) -> None:
        super().__init__()
        self.scale_factor = _pair(scale_factor)

    def extra_repr(self) -> str:
        return f"scale_factor={self.scale_factor}"


class NearestUpsample2d(_Upsample2d):
    """Every pixel becomes a block of its copies.

    Args:
        scale_factor: a whole number, or (height, width).
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        size = [n * f for n, f in zip(input.shape[-2:], self.scale_factor, strict=True)]
        maps = input[None] if input.dim() == 3 else input  # torch's other layers take a map without a batch
        found = nn.functional.interpolate(maps, size, mode="nearest-exact")
        return found[0] if input.dim() == 3 else found


class BedOfNailsUpsample2d(_Upsample2d):
    """Every pixel goes to the top left corner of its block, the rest of which is zero.

    Args:
        scale_factor: a whole number, or (height, width).
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        rows, columns = self.scale_factor
        *lead, height, width = input.shape
        found = input.new_zeros(*lead, height * rows, width * columns)
        found = found.contiguous(memory_format=memory_format(input))
        found[..., ::rows, ::columns] = input
        return found


def bilinear_kernel_(weight: torch.Tensor, stride: int | Sequence[int] | None = None) -> torch.Tensor:
    """Fill the weight of a transposed convolution so that it interpolates bilinearly, as FCN starts from (Long et al.,
    "Fully Convolutional Networks for Semantic Segmentation", 2015).

    Args:
        weight: ``[Cin, Cout / groups, kernel height, kernel width]``. Each input channel goes to the output channel of
            the same place in its group, and to no other: a depthwise weight is filled, a dense one is diagonal.
            How many groups there are follows from its shape: as many as output channels of a group go into Cin.
        stride: by which the layer stretches its input; left out: the one for which a kernel is usually so large,
            ``(kernel + 1) // 2``. A kernel of ``2 stride`` or ``2 stride - 1`` is the whole tent; a larger one ends in
            zeros, a smaller one is cut.

    Returns:
        ``weight``

    Raises:
        ValueError: when the input channels do not make up groups as wide as the output channels'.
    """
    inputs, outputs, *kernel = weight.shape
    if len(kernel) != 2 or outputs == 0 or inputs % outputs:
        raise ValueError(f"weight must have as many input as output channels in a group, got {list(weight.shape)}")
    factors = _pair(stride, "stride") if stride is not None else [(k + 1) // 2 for k in kernel]
    tents = []
    for size, factor in zip(kernel, factors, strict=True):
        distance = (torch.arange(size, dtype=torch.float64) - (size - 1) / 2).abs()
        tents.append((1 - distance / factor).clamp(min=0))
    filled = torch.outer(*tents).to(weight)
    channels = torch.arange(inputs, device=weight.device)
    with torch.no_grad():
        weight.zero_()
        weight[channels, channels % outputs] = filled
    return weight


class BilinearUpsample2d(ConvTranspose2d):
    """A depthwise transposed convolution that starts as bilinear interpolation, and may learn better.

    Away from the border that is ``torch.nn.Upsample(mode="bilinear")``. Beyond the border there is nothing, where torch
    repeats the last pixel: the outermost ``scale_factor / 2`` pixels are darker, as in FCN.

    Args:
        channels: C.
        scale_factor: a whole number, or (height, width).
    """

    def __init__(
        self,
        channels: int,
        scale_factor: int | Sequence[int],
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        factors = self.scale_factor = _pair(scale_factor)
        # As long as two pixels are apart, and cut so that an output is exactly scale_factor times as long.
        kernel = tuple(2 * f - f % 2 for f in factors)
        padding = tuple((k - f) // 2 for k, f in zip(kernel, factors, strict=True))
        super().__init__(
            channels,
            channels,
            kernel,  # type: ignore[arg-type]
            factors,
            padding,  # type: ignore[arg-type]
            groups=channels,
            bias=False,
            device=device,
            dtype=dtype,
        )

    def reset_parameters(self) -> None:
        bilinear_kernel_(self.weight, self.stride)
