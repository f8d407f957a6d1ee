"""Transposed convolution in Triton: implicit matrix products, one program a tile of outputs of one phase."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from structops.triton_kernels._conv_transpose_kernels import (
    conv_transpose_gather_kernel,
    conv_transpose_grad_weight_kernel,
)
from structops.triton_kernels._launch import Launch, double_bits, run

from structops._layout import memory_format
from structops.reference.conv_transpose2d import output_size

SHARE = (
    4096  # pixels that one program adds up for the gradient of a weight: fixed, so that sums do not depend on the GPU
)


def _tile(source: torch.Tensor, channels: int, depthwise: bool) -> dict:
    """Positions and channels of a tile, and channels of a step, as far as registers reach: in NCHW each load has an
    address of its own."""
    wide = 64 if channels > 32 else 32 if channels > 16 else 16
    double, half = source.dtype == torch.float64, source.dtype.itemsize == 2
    planar = source.stride(1) != 1
    if depthwise:
        return {"POSITIONS": 32, "CHANNELS": 16 if double or planar else min(wide, 32), "DEPTH": 16}
    if half:
        return {
            "POSITIONS": 64 if planar else 128,
            "CHANNELS": min(wide, 32) if planar else wide,
            "DEPTH": 16 if planar else 32,
        }
    if double:
        return {"POSITIONS": 32 if planar else 16, "CHANNELS": 16 if planar else 32, "DEPTH": 16}
    return {"POSITIONS": 32, "CHANNELS": wide, "DEPTH": 16}


def _common(x: torch.Tensor) -> dict:
    return {"COMPUTE": tl.float64 if x.dtype == torch.float64 else tl.float32, "WIDEN": x.device.type == "cpu"}


def _strides(prefix: str, x: torch.Tensor) -> dict:
    return {f"{prefix}stride_{axis}": stride for axis, stride in zip("ncyx", x.stride(), strict=True)}


def _axis(name: str, stride: int, dilation: int) -> dict:
    common = math.gcd(stride, dilation)
    step = stride // common
    inverse = pow(dilation // common, -1, step) if step > 1 else 0
    return {
        f"STRIDE_{name}": stride,
        f"DILATION_{name}": dilation,
        f"COMMON_{name}": common,
        f"INVERSE_{name}": inverse,
    }


def _gather(
    source: torch.Tensor,
    weight: torch.Tensor,  # [kh, kw, groups, channels of source, channels of out]
    size: tuple[int, ...],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    forward: bool,
    epilogue: dict,
) -> tuple[torch.Tensor, list[Launch]]:
    kernel_height, kernel_width, groups, depth, channels = weight.shape
    out = source.new_empty(size).contiguous(memory_format=memory_format(source))
    residual = epilogue.get("residual")
    if residual is not None:  # read with the output's strides
        residual = residual.contiguous(memory_format=memory_format(out))
        if residual.stride() != out.stride():
            residual = torch.empty_strided(out.shape, out.stride(), dtype=out.dtype, device=out.device).copy_(residual)
    depthwise = depth == 1 and channels == 1 and groups > 1
    if depthwise:
        channels, groups = groups, 1
    tile = _tile(source, channels, depthwise)
    step = stride if forward else [1, 1]
    rows, columns = (-(-n // s) for n, s in zip(size[2:], step, strict=True))
    phases = step[0] * step[1]
    vectors = {name: epilogue.get(name) for name in ("bias", "scale", "shift")}
    arguments = {
        "source": source,
        "weight": weight,
        "out": out,
        **{name: None if v is None else v.contiguous() for name, v in vectors.items()},
        "residual": residual,
        "slope_bits": double_bits(epilogue.get("slope", 0.0)),
        "batch": size[0],
        "source_height": source.shape[2],
        "source_width": source.shape[3],
        "height": size[2],
        "width": size[3],
        "kernel_height": kernel_height,
        "kernel_width": kernel_width,
        "padding_y": padding[0],
        "padding_x": padding[1],
        **_strides("source_", source),
        **_strides("", out),
        "depth": depth,
        "channels": channels,
        "FORWARD": forward,
        **_axis("Y", stride[0], dilation[0]),
        **_axis("X", stride[1], dilation[1]),
        "ACTIVATION": epilogue.get("activation", 0),
        "LAST": epilogue.get("last", False),
        **_common(source),
        "DEPTHWISE": depthwise,
        **tile,
    }
    grid = (
        triton.cdiv(size[0] * rows * columns, tile["POSITIONS"]),
        triton.cdiv(channels, tile["CHANNELS"]),
        phases * groups,
    )
    options = {"num_warps": 8 if tile["POSITIONS"] > 32 else 4, "num_stages": 3}
    return out, [Launch(conv_transpose_gather_kernel, grid, arguments, options)]


def _by_tap(weight: torch.Tensor, groups: int, forward: bool) -> torch.Tensor:
    """``[Ci, Co / groups, kh, kw]`` to ``[kh, kw, groups, read channels, written channels]``, dense."""
    w = weight.unflatten(0, (groups, weight.shape[0] // groups))
    return w.permute(3, 4, 0, 1, 2).contiguous() if forward else w.permute(3, 4, 0, 2, 1).contiguous()


def _forward(
    input,
    weight,
    bias,
    scale,
    shift,
    residual,
    stride,
    padding,
    output_padding,
    groups,
    dilation,
    activation,
    negative_slope,
    residual_after_activation,
):
    size = output_size(input, weight, stride, padding, output_padding, dilation)
    epilogue = {"bias": bias, "scale": scale, "shift": shift, "residual": residual}
    epilogue |= {"activation": activation, "slope": negative_slope, "last": residual_after_activation}
    shape = (input.shape[0], weight.shape[1] * groups, *size)
    return _gather(input, _by_tap(weight, groups, True), shape, stride, padding, dilation, True, epilogue)


def _grad_input(grad, weight, height, width, stride, padding, groups, dilation):
    size = (grad.shape[0], weight.shape[0], height, width)
    return _gather(grad, _by_tap(weight, groups, False), size, stride, padding, dilation, False, {})


def _grad_weight(input, grad, kernel_height, kernel_width, stride, padding, groups, dilation):
    batch, _, height, width = input.shape
    rows, columns = input.shape[1] // groups, grad.shape[1] // groups
    wide = torch.float64 if input.dtype == torch.float64 else torch.float32
    parts = triton.cdiv(batch * height * width, SHARE)
    sums = input.new_empty((parts, kernel_height, kernel_width, groups, rows, columns), dtype=wide)
    block = 32 if wide == torch.float64 or input.dtype == torch.float32 else 64
    tile = {name: min(block, max(16, triton.next_power_of_2(n))) for name, n in (("ROWS", rows), ("COLUMNS", columns))}
    blocks = triton.cdiv(columns, tile["COLUMNS"])
    arguments = {
        "source": input,
        "grad": grad,
        "out": sums,
        "batch": batch,
        "height": height,
        "width": width,
        "grad_height": grad.shape[2],
        "grad_width": grad.shape[3],
        "kernel_height": kernel_height,
        "kernel_width": kernel_width,
        "padding_y": padding[0],
        "padding_x": padding[1],
        **_strides("source_", input),
        **_strides("grad_", grad),
        "groups": groups,
        "rows": rows,
        "columns": columns,
        "blocks_of_columns": blocks,
        "share": SHARE,
        "STRIDE_Y": stride[0],
        "STRIDE_X": stride[1],
        "DILATION_Y": dilation[0],
        "DILATION_X": dilation[1],
        **_common(input),
        **tile,
        "PIXELS": 32 if input.dtype.itemsize == 2 and input.stride(1) == 1 else 16,
    }
    grid = (triton.cdiv(rows, tile["ROWS"]) * blocks, parts, kernel_height * kernel_width * groups)
    return sums, [Launch(conv_transpose_grad_weight_kernel, grid, arguments, {"num_warps": 4, "num_stages": 3})]


def conv_transpose2d(
    input,
    weight,
    bias,
    scale,
    shift,
    residual,
    stride,
    padding,
    output_padding,
    groups,
    dilation,
    activation,
    negative_slope,
    residual_after_activation,
) -> torch.Tensor:
    tensors, steps = (input, weight, bias, scale, shift, residual), (stride, padding, output_padding, groups, dilation)
    out, launches = _forward(*tensors, *steps, activation, negative_slope, residual_after_activation)
    run(input.device, launches)
    return out


def conv_transpose2d_grad_input(grad, weight, height, width, stride, padding, groups, dilation) -> torch.Tensor:
    out, launches = _grad_input(grad, weight, height, width, stride, padding, groups, dilation)
    run(grad.device, launches)
    return out


def conv_transpose2d_grad_weight(
    input, grad, kernel_height, kernel_width, stride, padding, groups, dilation
) -> torch.Tensor:
    sums, launches = _grad_weight(input, grad, kernel_height, kernel_width, stride, padding, groups, dilation)
    run(input.device, launches)
    # [parts, kh, kw, groups, rows, columns] to [groups * rows, columns, kh, kw], parts added up in order.
    return sums.sum(0).permute(2, 3, 4, 0, 1).flatten(0, 1).to(input.dtype).contiguous()


def ahead_of_time() -> Iterator[tuple[str, Launch]]:
    """Launches to compile in tests, on meta tensors: a mask head's and a pose network's layer, and a depthwise one."""
    steps = ([2, 2], [1, 1])
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        for layout in (torch.contiguous_format, torch.channels_last):

            def empty(*size: int, dtype=dtype, layout=layout) -> torch.Tensor:
                x = torch.empty(size, dtype=dtype, device="meta")
                return x.contiguous(memory_format=layout) if len(size) == 4 else x

            name = f"{str(dtype).removeprefix('torch.')}-{str(layout).removeprefix('torch.')}"
            x, w, out = empty(8, 256, 32, 24), empty(256, 256, 4, 4), empty(8, 256, 64, 48)
            fused = (empty(256), empty(256), empty(256), out)
            for launch in _forward(x, w, *fused, *steps, [0, 0], 1, [1, 1], 1, 0.0, True)[1]:
                yield f"forward-{name}", launch
            for launch in _forward(x, empty(256, 1, 4, 4), *[None] * 4, *steps, [0, 0], 256, [1, 1], 3, 0.0, False)[1]:
                yield f"depthwise-{name}", launch
            for launch in _grad_input(out, w, 32, 24, *steps, 1, [1, 1])[1]:
                yield f"grad-input-{name}", launch
            for launch in _grad_weight(x, out, 4, 4, *steps, 1, [1, 1])[1]:
                yield f"grad-weight-{name}", launch
