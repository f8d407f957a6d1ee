from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import fx, nn

from structops.ops.conv_transpose2d import conv_transpose2d, lowered
from structops.reference.conv_transpose2d import output_size

fx.wrap("conv_transpose2d")  # one node of torch.fx's graphs, which cannot look into it

#: torch's own functions, for what the kernel does not take
_ACTIVATIONS: dict[str, Callable[[torch.Tensor, float], torch.Tensor]] = {
    "none": lambda x, slope: x,
    "relu": lambda x, slope: F.relu(x),
    "leaky_relu": F.leaky_relu,
    "gelu": lambda x, slope: F.gelu(x),
    "silu": lambda x, slope: F.silu(x),
    "sigmoid": lambda x, slope: torch.sigmoid(x),
}

_AFFINE = (("scale", 1.0), ("shift", 0.0))  # at first


class ConvTranspose2d(nn.ConvTranspose2d):
    """``torch.nn.ConvTranspose2d``, computed by :func:`structops.ops.conv_transpose2d`.

    Arguments, state and results are torch's, so that either reads the other's ``state_dict``.
    """

    def forward(self, input: torch.Tensor, output_size: Sequence[int] | None = None) -> torch.Tensor:
        """
        Args:
            input: ``[N, Cin, H, W]`` or ``[Cin, H, W]``.
            output_size: the height and width wanted, of those that the stride leaves open; the module's
                ``output_padding`` is then not looked at.
        """
        return conv_transpose2d(
            input,
            self.weight,
            self.bias,
            self.stride,  # type: ignore[arg-type]
            self.padding,  # type: ignore[arg-type]
            self._chosen_padding(input, output_size),
            self.groups,
            self.dilation,  # type: ignore[arg-type]
        )

    def _chosen_padding(self, input: torch.Tensor, output_size: Sequence[int] | None) -> list[int]:
        """The output_padding that gives ``output_size``; raises ValueError, as torch does, where none can."""
        return self._output_padding(
            input,
            output_size,  # type: ignore[arg-type]
            self.stride,  # type: ignore[arg-type]
            self.padding,  # type: ignore[arg-type]
            self.kernel_size,  # type: ignore[arg-type]
            2,
            self.dilation,  # type: ignore[arg-type]
        )


class FusedConvTranspose2d(ConvTranspose2d):
    """A transposed convolution and what follows it, in one kernel:
    ``activation((conv(input) + bias) * scale + shift + residual)``.

    The first arguments are those of ``torch.nn.ConvTranspose2d``. :func:`structops.fuse_conv_transpose` makes these
    modules out of a network's own.

    Args:
        affine: has ``scale`` and ``shift`` (``[Cout]``, at first 1 and 0): a batch norm whose statistics stand still.
            They are kept beside the weight, and not multiplied into it, so that a half weight is not rounded again.
        activation, negative_slope: see :func:`structops.ops.conv_transpose2d`.
        residual_after_activation: where the residual is added.
    """

    scale: nn.Parameter | None
    shift: nn.Parameter | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        output_padding: int | tuple[int, int] = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: int | tuple[int, int] = 1,
        *,
        affine: bool = False,
        activation: str = "none",
        negative_slope: float = 0.01,
        residual_after_activation: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        if activation not in _ACTIVATIONS:
            found = f"{', '.join(_ACTIVATIONS)}, got {activation!r}"
            raise ValueError(f"FusedConvTranspose2d: activation must be one of {found}")
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            output_padding,
            groups,
            bias,
            dilation,
            device=device,
            dtype=dtype,
        )
        for name, value in _AFFINE:
            vector = torch.full((out_channels,), value, device=device, dtype=dtype) if affine else None
            self.register_parameter(name, None if vector is None else nn.Parameter(vector))
        self.activation, self.negative_slope = activation, negative_slope
        self.residual_after_activation = residual_after_activation

    def reset_parameters(self) -> None:
        super().reset_parameters()
        for name, value in _AFFINE:
            if (vector := getattr(self, name, None)) is not None:  # the constructor comes here before it makes them
                nn.init.constant_(vector, value)

    def forward(  # type: ignore[override]
        self,
        input: torch.Tensor,
        residual: torch.Tensor | None = None,
        output_size: Sequence[int] | None = None,
    ) -> torch.Tensor:
        """
        Args:
            input: ``[N, Cin, H, W]`` or ``[Cin, H, W]``.
            residual: a skip connection. One that is not of the output's shape and type is added by torch, which
                broadcasts and promotes.
            output_size: as in :class:`ConvTranspose2d`.
        """
        padding = self._chosen_padding(input, output_size)
        if residual is None or self._fits(residual, input, padding):
            return self._fused(input, padding, self.activation, residual)
        if self.residual_after_activation or self.activation == "none":
            return self._fused(input, padding, self.activation) + residual
        sum_ = self._fused(input, padding, "none") + residual
        return _ACTIVATIONS[self.activation](sum_, self.negative_slope)

    def _fused(self, input, padding, activation, residual=None) -> torch.Tensor:
        return conv_transpose2d(
            input,
            self.weight,
            self.bias,
            self.stride,  # type: ignore[arg-type]
            self.padding,  # type: ignore[arg-type]
            padding,
            self.groups,
            self.dilation,  # type: ignore[arg-type]
            scale=self.scale,
            shift=self.shift,
            activation=activation,
            negative_slope=self.negative_slope,
            residual=residual,
            residual_after_activation=self.residual_after_activation,
        )

    def _fits(self, residual, input: torch.Tensor, output_padding: Sequence[int]) -> bool:
        """Whether the kernel takes the residual: it has the shape and the type of what is added to."""
        if not isinstance(residual, torch.Tensor) or residual.dim() != input.dim():
            return False
        size = output_size(input, self.weight, self.stride, self.padding, output_padding, self.dilation)
        return (
            residual.dtype == lowered(input.device.type, input.dtype)
            and residual.device == input.device
            and list(residual.shape) == [*input.shape[:-3], self.out_channels, *size]
        )

    def extra_repr(self) -> str:
        found = super().extra_repr()
        for name in ("scale", "shift"):
            found += f", {name}=True" if getattr(self, name) is not None else ""
        if self.activation != "none":
            found += f", activation={self.activation}"
        if self.activation == "leaky_relu":
            found += f", negative_slope={self.negative_slope}"
        return found + (", residual_after_activation=True" if self.residual_after_activation else "")
