"""RoI Align of rotated boxes by its definition, one RoI at a time."""

from __future__ import annotations

import math

import torch

COORDINATE_LIMIT = 2.0**30  # feature pixels; finite centres and sizes are clamped to it

# Taylor's series, highest power first: on [-45, 45] degrees the remainders are below 1e-17.
SINE = [1 / 355687428096000, -1 / 1307674368000, 1 / 6227020800, -1 / 39916800, 1 / 362880, -1 / 5040, 1 / 120, -1 / 6]
COSINE = [1 / 20922789888000, -1 / 87178291200, 1 / 479001600, -1 / 3628800, 1 / 40320, -1 / 720, 1 / 24, -0.5, 1.0]


def rotation(degrees: float) -> tuple[float, float]:
    """Cosine and sine of an angle: exact for quarter turns, and the same to the last bit wherever they are computed.

    Libraries differ in the last bit of a sine, and a sample that lies on the map's edge must be on the same side on
    every backend; so the series is part of the definition.
    """
    turn = math.fmod(degrees, 360.0)  # exact
    quarters = math.floor(turn / 90.0 + 0.5)
    x = (turn - 90.0 * quarters) * (math.pi / 180)
    s, c = SINE[0], COSINE[0]
    for a in SINE[1:]:
        s = s * (x * x) + a
    for a in COSINE[1:]:
        c = c * (x * x) + a
    s = x + x * (s * (x * x))
    return ((c, s), (-s, c), (-c, -s), (s, -c))[quarters % 4]


def along(length: float, pooled: int, samples: int, low: float, high: float) -> torch.Tensor:
    """Where a side of the box is sampled, from its middle: ``[pooled, m]``, the samples of each bin.

    Of many samples only those of a bin that can be in ``[low, high]``: a huge box has billions outside the map. Bins
    with fewer of them are filled up with NaN.
    """
    bin_size = length / pooled
    positions = []
    for p in range(pooled):
        start = -0.5 * length + p * bin_size
        first, last = 0, samples
        if samples > 2 and bin_size / samples != 0:
            a, b = sorted((edge - start) / (bin_size / samples) for edge in (low, high))
            first, last = (min(max(n, 0), samples) for n in (math.floor(a) - 2, math.ceil(b) + 2))
        i = torch.arange(first, max(first, last), dtype=torch.float64)
        positions.append(start + (i + 0.5) * bin_size / samples)
    return torch.nn.utils.rnn.pad_sequence(positions, batch_first=True, padding_value=math.nan)


def pixels_below(at: torch.Tensor, extent: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The pixel at or below each position, which is inside, and the weight of the next one."""
    at = at.clamp(min=0)
    low = at.long().clamp(max=extent - 1)
    return low, torch.where(low >= extent - 1, 0.0, at - low)


def roi_weights(
    roi: list[float],
    spatial_scale: float,
    pooled: tuple[int, int],
    sampling_ratio: int,
    aligned: bool,
    clockwise: bool,
    map_shape: tuple[int, ...],
) -> tuple[int, torch.Tensor, torch.Tensor] | None:
    """One RoI as a sparse matrix: image index, ``[2, m]`` (bin; pixel, in row order) and ``[m]`` weights, which add up
    where an index pair occurs twice. A map is ``(N, C, H, W)``.

    ``None``: the box is not finite or the index out of range, and its output NaN.
    """
    index, x, y, box_width, box_height, degrees = roi
    batch, _, height, width = map_shape
    offset = 0.5 if aligned else 0.0
    x, y = x * spatial_scale - offset, y * spatial_scale - offset
    box_width, box_height = box_width * spatial_scale, box_height * spatial_scale
    if not (0 <= index < batch and all(map(math.isfinite, (x, y, box_width, box_height, degrees)))):
        return None
    x, y, box_width, box_height = (
        min(max(v, -COORDINATE_LIMIT), COORDINATE_LIMIT) for v in (x, y, box_width, box_height)
    )
    if not aligned:
        box_width, box_height = max(box_width, 1.0), max(box_height, 1.0)
    cos, sin = rotation(degrees)
    sin = -sin if clockwise else sin

    samples = [
        sampling_ratio if sampling_ratio > 0 else max(math.ceil(size / bins), 0)
        for size, bins in zip((box_height, box_width), pooled, strict=True)
    ]
    nothing = torch.zeros(2, 0, dtype=torch.long), torch.zeros(0, dtype=torch.float64)
    if 0 in samples:
        return int(index), *nothing
    # The map's corners seen from the box bound the samples worth looking at.
    corners = [(cx - x, cy - y) for cx in (-1.0, float(width)) for cy in (-1.0, float(height))]
    down = [dx * sin + dy * cos for dx, dy in corners]
    across = [dx * cos - dy * sin for dx, dy in corners]
    v = along(box_height, pooled[0], samples[0], min(down), max(down))[:, None, :, None]
    u = along(box_width, pooled[1], samples[1], min(across), max(across))[None, :, None, :]
    at_x = v * sin + u * cos + x  # [PH, PW, samples down, samples across]
    at_y = v * cos - u * sin + y
    inside = (at_x >= -1) & (at_x <= width) & (at_y >= -1) & (at_y <= height)
    bins = inside.nonzero()[:, 0] * pooled[1] + inside.nonzero()[:, 1]
    left, right_weight = pixels_below(at_x[inside], width)
    top, bottom_weight = pixels_below(at_y[inside], height)
    entries, weights = [], []
    for rows, wy in ((top, 1 - bottom_weight), ((top + 1).clamp(max=height - 1), bottom_weight)):
        for columns, wx in ((left, 1 - right_weight), ((left + 1).clamp(max=width - 1), right_weight)):
            entries.append(torch.stack([bins, rows * width + columns]))
            weights.append(wy * wx / (samples[0] * samples[1]))
    return int(index), torch.cat(entries, 1), torch.cat(weights)


def roi_align_rotated(
    input: torch.Tensor,
    rois: torch.Tensor,
    spatial_scale: float,
    pooled_height: int,
    pooled_width: int,
    sampling_ratio: int,
    aligned: bool,
    clockwise: bool,
) -> torch.Tensor:
    """RoI Align of ``input [N, C, H, W]`` at ``rois [K, 6]`` (batch index, centre x, centre y, width, height, degrees).

    Returns ``[K, C, pooled_height, pooled_width]``. A box that is not finite, or whose batch index is out of range,
    gives NaN.
    """
    pooled, channels = (pooled_height, pooled_width), input.shape[1]
    compute = torch.promote_types(input.dtype, torch.float32)
    crops = []
    for roi in rois.detach().double().tolist():
        found = roi_weights(roi, spatial_scale, pooled, sampling_ratio, aligned, clockwise, tuple(input.shape))
        if found is None:
            crops.append(input.new_full((channels, *pooled), math.nan, dtype=compute))
            continue
        index, (bins, pixels), weights = found
        # A pixel of weight zero is not read, so an infinity there does not turn into NaN.
        used = weights != 0
        bins, pixels = bins[used].to(input.device), pixels[used].to(input.device)
        terms = input[index].flatten(1)[:, pixels].to(compute) * weights[used].to(input.device, compute)
        crop = terms.new_zeros(channels, pooled_height * pooled_width).index_add(1, bins, terms)
        crops.append(crop.reshape(channels, *pooled))
    if not crops:
        return input.new_zeros(0, channels, *pooled) + 0 * input.sum()
    return torch.stack(crops).to(input.dtype)


def roi_align_rotated_backward(
    grad: torch.Tensor,
    rois: torch.Tensor,
    spatial_scale: float,
    pooled_height: int,
    pooled_width: int,
    batch_size: int,
    channels: int,
    height: int,
    width: int,
    sampling_ratio: int,
    aligned: bool,
    clockwise: bool,
) -> torch.Tensor:
    """Gradient of :func:`roi_align_rotated` with respect to its input: ``grad [K, C, PH, PW]`` to ``[N, C, H, W]``.

    A box that is not finite contributes nothing.
    """
    pooled, shape = (pooled_height, pooled_width), (batch_size, channels, height, width)
    grad_input = grad.new_zeros(
        batch_size, channels, height * width, dtype=torch.promote_types(grad.dtype, torch.float32)
    )
    for roi, g in zip(rois.detach().double().tolist(), grad.to(grad_input.dtype), strict=True):
        found = roi_weights(roi, spatial_scale, pooled, sampling_ratio, aligned, clockwise, shape)
        if found is not None:
            index, (bins, pixels), weights = found
            used = weights != 0
            bins, pixels = bins[used].to(grad.device), pixels[used].to(grad.device)
            terms = g.flatten(1)[:, bins] * weights[used].to(g)
            grad_input[index].index_add_(1, pixels, terms)
    return grad_input.reshape(shape).to(grad.dtype)
