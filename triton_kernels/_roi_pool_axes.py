"""Where each RoI's bins begin and end, as the Triton kernels of RoI Pool compute it."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _nearest(v):
    """The nearest integer, halves away from zero; limited to 2^30 as all coordinates are."""
    v = tl.minimum(tl.maximum(v, -1073741824.0), 1073741824.0)
    size = tl.abs(v)
    whole = tl.floor(size)
    whole += tl.where(size - whole >= 0.5, 1.0, 0.0)
    return tl.where(v < 0.0, -whole, whole).to(tl.int64)


@triton.jit
def _roi(rois, k, roi_stride, coordinate_stride, scale_bits, batch):
    """Image of RoI k (-1: its output is NaN), and start and length in pixels along y and x.

    Follows csrc/roi_pool/roi_pool_bins.h, so that all backends take the same decisions.
    """
    roi = rois + k * roi_stride
    scale = scale_bits.to(tl.int64).to(tl.float64, bitcast=True)
    picture = tl.load(roi).to(tl.float64)
    x1 = tl.load(roi + coordinate_stride).to(tl.float64) * scale
    y1 = tl.load(roi + 2 * coordinate_stride).to(tl.float64) * scale
    x2 = tl.load(roi + 3 * coordinate_stride).to(tl.float64) * scale
    y2 = tl.load(roi + 4 * coordinate_stride).to(tl.float64) * scale
    finite = ((x1 - x1) == 0.0) & ((y1 - y1) == 0.0) & ((x2 - x2) == 0.0) & ((y2 - y2) == 0.0)
    valid = finite & (picture >= 0.0) & (picture < batch)
    image = tl.where(valid, tl.where(valid, picture, 0.0).to(tl.int32), -1)
    start_y = _nearest(tl.where(valid, y1, 0.0))
    start_x = _nearest(tl.where(valid, x1, 0.0))
    length_y = tl.maximum(_nearest(tl.where(valid, y2, 0.0)) - start_y + 1, 1)
    length_x = tl.maximum(_nearest(tl.where(valid, x2, 0.0)) - start_x + 1, 1)
    return image, start_y, length_y, start_x, length_x


@triton.jit
def _bins(start, length, p, pooled, extent):
    """The first pixel of each bin p, and the one after its last, clipped to the map. In integers, so exact."""
    p = p.to(tl.int64)
    first = start + p * length // pooled
    last = start + ((p + 1) * length + pooled - 1) // pooled
    first = tl.minimum(tl.maximum(first, 0), extent).to(tl.int32)
    return first, tl.minimum(tl.maximum(last, 0), extent).to(tl.int32)
