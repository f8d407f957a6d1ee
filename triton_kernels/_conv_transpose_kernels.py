"""The kernels of the transposed convolution.

``gather`` multiplies pixels that taps lead to with the taps' weights. Forward: a program has outputs of one phase (same
coordinates modulo the stride), which all use the same taps, so nothing is multiplied by an inserted zero. Gradient of
the input: a program has input pixels, and every tap. ``grad_weight`` has a tap, and goes through the pixels.
"""

from __future__ import annotations

import triton
import triton.language as tl

NONE = tl.constexpr(0)
RELU = tl.constexpr(1)
LEAKY_RELU = tl.constexpr(2)
GELU = tl.constexpr(3)
SILU = tl.constexpr(4)


@triton.jit
def _number(bits, like):
    return bits.to(tl.int64).to(tl.float64, bitcast=True).to(like.dtype)


@triton.jit
def _activate(x, slope_bits, ACTIVATION: tl.constexpr):
    if ACTIVATION == NONE:
        return x
    elif ACTIVATION == RELU:
        return tl.where(x <= 0, 0.0, x)  # keeps NaN
    elif ACTIVATION == LEAKY_RELU:
        return tl.where(x <= 0, x * _number(slope_bits, x), x)
    elif ACTIVATION == GELU:
        return 0.5 * x * (1 + tl.erf(x * 0.70710678118654752440))
    elif ACTIVATION == SILU:
        return x / (1 + tl.exp(-x))
    else:
        return 1 / (1 + tl.exp(-x))


@triton.jit
def _finish(
    total,
    bias,
    scale,
    shift,
    residual,
    at,
    channel,
    inside,
    has,
    slope_bits,
    ACTIVATION: tl.constexpr,
    LAST: tl.constexpr,
):
    """activation((total + bias) * scale + shift + residual) of a tile [positions, channels]."""
    if bias is not None:
        total += tl.load(bias + channel, mask=has, other=0.0)[None, :].to(total.dtype)
    if scale is not None:
        total *= tl.load(scale + channel, mask=has, other=0.0)[None, :].to(total.dtype)
    if shift is not None:
        total += tl.load(shift + channel, mask=has, other=0.0)[None, :].to(total.dtype)
    if residual is not None:
        added = tl.load(residual + at, mask=inside[:, None] & has[None, :], other=0.0).to(total.dtype)
        if LAST:
            total = _activate(total, slope_bits, ACTIVATION) + added
        else:
            total = _activate(total + added, slope_bits, ACTIVATION)
    else:
        total = _activate(total, slope_bits, ACTIVATION)
    return total


@triton.jit
def _phase_taps(
    phase, padding, DILATION: tl.constexpr, COMMON: tl.constexpr, INVERSE: tl.constexpr, STEP: tl.constexpr
):
    """The first tap of an output phase, every STEP'th after it, and whether there is any.

    Tap k belongs to it where phase + padding - k * dilation is a multiple of the stride. COMMON is the greatest common
    divisor of stride and dilation, STEP = stride / COMMON, INVERSE that of dilation / COMMON modulo STEP.
    """
    target = phase + padding
    return target // COMMON * INVERSE % STEP, target % COMMON == 0


@triton.jit(do_not_specialize=["slope_bits"])
def conv_transpose_gather_kernel(
    source,  # [N, Cs, Hs, Ws], by strides: the input, or the gradient of the output
    weight,  # [kh, kw, Cs, Ct / groups], or (backward) [kh, kw, Cs / groups... as the launcher permutes it
    out,  # [N, Ct, Ht, Wt], by strides
    bias,
    scale,
    shift,
    residual,  # as out, of the same strides
    slope_bits,
    batch,
    source_height,
    source_width,
    height,
    width,
    kernel_height,
    kernel_width,
    padding_y,
    padding_x,
    source_stride_n,
    source_stride_c,
    source_stride_y,
    source_stride_x,
    stride_n,
    stride_c,
    stride_y,
    stride_x,
    depth,  # channels of the source in a group
    channels,  # of out in a group
    FORWARD: tl.constexpr,
    STRIDE_Y: tl.constexpr,
    STRIDE_X: tl.constexpr,
    DILATION_Y: tl.constexpr,
    DILATION_X: tl.constexpr,
    COMMON_Y: tl.constexpr,
    COMMON_X: tl.constexpr,
    INVERSE_Y: tl.constexpr,
    INVERSE_X: tl.constexpr,
    ACTIVATION: tl.constexpr,
    LAST: tl.constexpr,
    COMPUTE: tl.constexpr,
    WIDEN: tl.constexpr,  # before the product: the interpreter multiplies the bits of a bfloat16
    DEPTHWISE: tl.constexpr,  # one channel a group: elementwise, `channels` are the groups
    POSITIONS: tl.constexpr,
    CHANNELS: tl.constexpr,
    DEPTH: tl.constexpr,
):
    PHASES: tl.constexpr = STRIDE_Y * STRIDE_X if FORWARD else 1
    group = tl.program_id(2) // PHASES
    phase_y = tl.program_id(2) % PHASES // STRIDE_X
    phase_x = tl.program_id(2) % PHASES % STRIDE_X
    step_y: tl.constexpr = STRIDE_Y if FORWARD else 1
    step_x: tl.constexpr = STRIDE_X if FORWARD else 1
    rows = (height - phase_y + step_y - 1) // step_y
    columns = (width - phase_x + step_x - 1) // step_x
    position = tl.program_id(0).to(tl.int64) * POSITIONS + tl.arange(0, POSITIONS)
    image = position // tl.maximum(rows * columns, 1)
    row = position // tl.maximum(columns, 1) % tl.maximum(rows, 1)
    column = position % tl.maximum(columns, 1)
    inside = (image < batch) & (rows > 0) & (columns > 0)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    has = channel < channels
    first_y = 0
    first_x = 0
    any_y = True
    any_x = True
    STEP_Y: tl.constexpr = STRIDE_Y // COMMON_Y if FORWARD else 1
    STEP_X: tl.constexpr = STRIDE_X // COMMON_X if FORWARD else 1
    if FORWARD:
        first_y, any_y = _phase_taps(phase_y, padding_y, DILATION_Y, COMMON_Y, INVERSE_Y, STEP_Y)
        first_x, any_x = _phase_taps(phase_x, padding_x, DILATION_X, COMMON_X, INVERSE_X, STEP_X)
    last_y = tl.where(any_y, kernel_height, 0)
    last_x = tl.where(any_x, kernel_width, 0)
    total = tl.zeros([POSITIONS, CHANNELS], COMPUTE)
    for ky in range(first_y, last_y, STEP_Y):
        for kx in range(first_x, last_x, STEP_X):
            if FORWARD:
                y = row + (phase_y + padding_y - ky * DILATION_Y) // STRIDE_Y
                x = column + (phase_x + padding_x - kx * DILATION_X) // STRIDE_X
            else:
                y = row * STRIDE_Y - padding_y + ky * DILATION_Y
                x = column * STRIDE_X - padding_x + kx * DILATION_X
            there = inside & (y >= 0) & (y < source_height) & (x >= 0) & (x < source_width)
            pixel = source + image * source_stride_n + y * source_stride_y + x * source_stride_x
            tap = (ky * kernel_width + kx).to(tl.int64)
            if DEPTHWISE:
                a = tl.load(
                    pixel[:, None] + channel[None, :].to(tl.int64) * source_stride_c,
                    mask=there[:, None] & has[None, :],
                    other=0.0,
                )
                w = tl.load(weight + tap * channels + channel, mask=has, other=0.0)
                total += a.to(COMPUTE) * w.to(COMPUTE)[None, :]
            else:
                of_group = pixel + group.to(tl.int64) * depth * source_stride_c
                panel = weight + (tap * tl.num_programs(2) // PHASES + group) * depth * channels
                for begin in range(0, depth, DEPTH):
                    c = begin + tl.arange(0, DEPTH)
                    known = c < depth
                    a = tl.load(
                        of_group[:, None] + c[None, :].to(tl.int64) * source_stride_c,
                        mask=there[:, None] & known[None, :],
                        other=0.0,
                    )
                    w = tl.load(
                        panel + c[:, None].to(tl.int64) * channels + channel[None, :],
                        mask=known[:, None] & has[None, :],
                        other=0.0,
                    )
                    if WIDEN:
                        a = a.to(COMPUTE)
                        w = w.to(COMPUTE)
                    total = tl.dot(a, w, total, input_precision="ieee", out_dtype=COMPUTE)
    of_out = channel + group * channels
    y = row * step_y + phase_y
    x = column * step_x + phase_x
    at = (image * stride_n + y * stride_y + x * stride_x)[:, None] + of_out[None, :].to(tl.int64) * stride_c
    total = _finish(total, bias, scale, shift, residual, at, of_out, inside, has, slope_bits, ACTIVATION, LAST)
    tl.store(out + at, total.to(out.dtype.element_ty), mask=inside[:, None] & has[None, :])


@triton.jit
def conv_transpose_grad_weight_kernel(
    source,  # [N, Ci, H, W], by strides
    grad,  # [N, Co, Ho, Wo], by strides
    out,  # [parts, kh, kw, groups, Ci / groups, Co / groups]
    batch,
    height,
    width,
    grad_height,
    grad_width,
    kernel_height,
    kernel_width,
    padding_y,
    padding_x,
    source_stride_n,
    source_stride_c,
    source_stride_y,
    source_stride_x,
    grad_stride_n,
    grad_stride_c,
    grad_stride_y,
    grad_stride_x,
    groups,
    rows,  # Ci / groups
    columns,  # Co / groups
    blocks_of_columns,
    share,  # pixels of a part
    STRIDE_Y: tl.constexpr,
    STRIDE_X: tl.constexpr,
    DILATION_Y: tl.constexpr,
    DILATION_X: tl.constexpr,
    COMPUTE: tl.constexpr,
    WIDEN: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    PIXELS: tl.constexpr,
):
    group = tl.program_id(2) % groups
    tap = tl.program_id(2) // groups
    ky = tap // kernel_width
    kx = tap % kernel_width
    r = tl.program_id(0) // blocks_of_columns * ROWS + tl.arange(0, ROWS)
    c = tl.program_id(0) % blocks_of_columns * COLUMNS + tl.arange(0, COLUMNS)
    part = tl.program_id(1).to(tl.int64)
    end = tl.minimum((part + 1) * share, batch.to(tl.int64) * height * width)
    total = tl.zeros([ROWS, COLUMNS], COMPUTE)
    for begin in range(part * share, end, PIXELS):
        pixel = begin + tl.arange(0, PIXELS)
        image = pixel // (height * width)
        y = pixel // width % height
        x = pixel % width
        to_y = y * STRIDE_Y - padding_y + ky * DILATION_Y
        to_x = x * STRIDE_X - padding_x + kx * DILATION_X
        met = (pixel < end) & (to_y >= 0) & (to_y < grad_height) & (to_x >= 0) & (to_x < grad_width)
        of_source = source + image * source_stride_n + y * source_stride_y + x * source_stride_x
        of_grad = grad + image * grad_stride_n + to_y * grad_stride_y + to_x * grad_stride_x
        a = tl.load(
            of_source[None, :] + (group * rows + r)[:, None].to(tl.int64) * source_stride_c,
            mask=met[None, :] & (r < rows)[:, None],
            other=0.0,
        )
        b = tl.load(
            of_grad[:, None] + (group * columns + c)[None, :].to(tl.int64) * grad_stride_c,
            mask=met[:, None] & (c < columns)[None, :],
            other=0.0,
        )
        if WIDEN:
            a = a.to(COMPUTE)
            b = b.to(COMPUTE)
        total = tl.dot(a, b, total, input_precision="ieee", out_dtype=COMPUTE)
    first = (part * tl.num_programs(2) + tap * groups + group) * rows
    at = (first + r)[:, None] * columns + c[None, :]
    tl.store(out + at, total, mask=(r < rows)[:, None] & (c < columns)[None, :])
