"""Mask R-CNN's mask head in Triton: transposed convolution, ReLU, one class's 1x1 convolution, sigmoid in one kernel.

Kernel and stride are 2, so each of the four positions of an output pixel within its input pixel is a matrix product of
its own, [pixels, Cin] x [Cin, D]. A program has some pixels of one RoI and one position, and goes through D in blocks:
a block's sums are finished, weighted by the class's weights and added up before the next; none is ever written.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from structops.triton_kernels._launch import Launch, run


@triton.jit(do_not_specialize=["classes"])
def mask_head_predict_kernel(
    features,  # [K, Cin, H, W], by strides
    weight,  # [2, 2, Cin, D]
    bias,  # [D] or None
    logits_weight,  # [classes, D]
    logits_bias,  # [classes] or None
    labels,  # [K]
    out,  # [K, 2 H, 2 W]
    channels,
    hidden,
    height,
    width,
    classes,
    stride_roi,
    stride_channel,
    stride_row,
    stride_column,
    COMPUTE: tl.constexpr,
    WIDEN: tl.constexpr,  # before the product: the interpreter multiplies the bits of a bfloat16
    PIXELS: tl.constexpr,
    HIDDEN: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    roi = tl.program_id(0).to(tl.int64)
    pixel = tl.program_id(1) * PIXELS + tl.arange(0, PIXELS)
    position = tl.program_id(2)
    inside = pixel < height * width
    y = pixel // width
    x = pixel % width
    label = tl.load(labels + roi)
    known = (label >= 0) & (label < classes)
    own = tl.where(known, label, 0)
    row = features + roi * stride_roi + y.to(tl.int64) * stride_row + x.to(tl.int64) * stride_column
    of_position = weight + position.to(tl.int64) * channels * hidden
    logit = tl.zeros([PIXELS], COMPUTE)
    for first in range(0, hidden, HIDDEN):
        d = first + tl.arange(0, HIDDEN)
        has = d < hidden
        total = tl.zeros([PIXELS, HIDDEN], COMPUTE)
        for begin in range(0, channels, CHANNELS):
            c = begin + tl.arange(0, CHANNELS)
            there = c < channels
            a = tl.load(
                row[:, None] + c[None, :].to(tl.int64) * stride_channel,
                mask=inside[:, None] & there[None, :],
                other=0.0,
            )
            w = tl.load(of_position + c[:, None] * hidden + d[None, :], mask=there[:, None] & has[None, :], other=0.0)
            if WIDEN:
                a = a.to(COMPUTE)
                w = w.to(COMPUTE)
            total = tl.dot(a, w, total, input_precision="ieee", out_dtype=COMPUTE)
        if bias is not None:
            total += tl.load(bias + d, mask=has, other=0.0).to(COMPUTE)[None, :]
        total = tl.where(total <= 0, 0.0, total)  # keeps NaN
        share = tl.load(logits_weight + own * hidden + d, mask=has, other=0.0).to(COMPUTE)
        # Past D the products are zero, or no number where the features are not finite.
        logit += tl.sum(tl.where(has[None, :], total * share[None, :], 0.0), axis=1)
    if logits_bias is not None:
        logit += tl.load(logits_bias + own).to(COMPUTE)
    probability = 1 / (1 + tl.exp(-logit))
    probability = tl.where(known, probability, float("nan"))
    at = (roi * 2 * height + 2 * y + position // 2) * (2 * width) + 2 * x + position % 2
    tl.store(out + at, probability.to(out.dtype.element_ty), mask=inside)


def _forward(features, deconv_weight, deconv_bias, logits_weight, logits_bias, labels):
    rois, channels, height, width = features.shape
    hidden = deconv_weight.shape[1]
    out = features.new_empty((rois, 2 * height, 2 * width))
    double = features.dtype == torch.float64
    half = features.dtype.itemsize == 2
    pixels, block = (64, 64) if half else (32, 32) if double else (32, 64)  # 64 x 64 floats: 182 registers
    arguments = {
        "features": features,
        "weight": deconv_weight.permute(2, 3, 0, 1).contiguous(),
        "bias": None if deconv_bias is None else deconv_bias.contiguous(),
        "logits_weight": logits_weight.contiguous(),
        "logits_bias": None if logits_bias is None else logits_bias.contiguous(),
        "labels": labels.to(torch.int64).contiguous(),
        "out": out,
        "channels": channels,
        "hidden": hidden,
        "height": height,
        "width": width,
        "classes": logits_weight.shape[0],
        "stride_roi": features.stride(0),
        "stride_channel": features.stride(1),
        "stride_row": features.stride(2),
        "stride_column": features.stride(3),
        "COMPUTE": tl.float64 if double else tl.float32,
        "WIDEN": features.device.type == "cpu",
        "PIXELS": pixels,
        "HIDDEN": block,
        "CHANNELS": 32 if half else 16,
    }
    grid = (rois, triton.cdiv(height * width, pixels), 4)
    return out, [Launch(mask_head_predict_kernel, grid, arguments, {"num_warps": 4, "num_stages": 3})]


def mask_head_predict(features, deconv_weight, deconv_bias, logits_weight, logits_bias, labels) -> torch.Tensor:
    out, launches = _forward(features, deconv_weight, deconv_bias, logits_weight, logits_bias, labels)
    run(features.device, launches)
    return out


def ahead_of_time() -> Iterator[tuple[str, Launch]]:
    """Launches to compile in tests, on meta tensors."""
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        for layout in (torch.contiguous_format, torch.channels_last):

            def empty(*size: int, dtype=dtype) -> torch.Tensor:
                return torch.empty(size, dtype=dtype, device="meta")

            features = empty(100, 256, 14, 14).contiguous(memory_format=layout)
            labels = torch.empty(100, dtype=torch.int64, device="meta")
            layers = (empty(256, 256, 2, 2), empty(256), empty(91, 256), empty(91))
            name = f"{str(dtype).removeprefix('torch.')}-{str(layout).removeprefix('torch.')}"
            yield name, _forward(features, *layers, labels)[1][0]
