"""Cases of RoI Align of rotated boxes."""

from __future__ import annotations

import torch

from structops.ops import roi_align_rotated
from structops.testing.cases._draw import INF, NAN, CaseList, features, tensor, uniform
from structops.testing.spec import Arguments, ErrorCase, OpSpec

CASES = CaseList()
Rows = tuple[list[float], ...]


def arguments(input: torch.Tensor, boxes: object, output_size: object, **options: object) -> Arguments:
    return {"input": input, "boxes": boxes, "output_size": output_size, **options}


def rois(
    g: torch.Generator,
    n: int,
    images: int,
    width: float,
    height: float,
    smallest: float = 1.0,
    largest: float | None = None,
) -> torch.Tensor:
    """``[n, 6]``: centres in the image, sides from ``smallest`` to ``largest`` (half the image), any angle."""
    index = torch.randint(images, (n, 1), generator=g).double()
    centre = torch.cat([uniform(g, 0, width, n, 1), uniform(g, 0, height, n, 1)], 1)
    sides = uniform(g, smallest, largest or 0.5 * max(width, height), n, 2)
    return torch.cat([index, centre, sides, uniform(g, -400, 400, n, 1)], 1)


# Typical: a detector of oriented objects, and one of text lines.


@CASES.add("box-head")
def _(g):
    boxes = rois(g, 24, 2, 4 * 42, 4 * 25, smallest=16, largest=112)
    return arguments(features(g, 2, 32, 25, 42), boxes, (7, 7), spatial_scale=0.25, sampling_ratio=2)


@CASES.add("text-lines")
def _(g):
    boxes = rois(g, 12, 1, 4 * 42, 4 * 25, smallest=8, largest=24)
    boxes[:, 3] *= 6
    options = {"spatial_scale": 0.25, "sampling_ratio": 0, "clockwise": True}
    return arguments(features(g, 1, 24, 25, 42), boxes, (4, 20), **options)


@CASES.add("defaults")
def _(g):
    return arguments(features(g, 2, 4, 20, 23), rois(g, 9, 2, 23, 20), 5)


@CASES.add("one-box", "quick")
def _(g):
    return arguments(features(g, 1, 3, 8, 8), tensor([0, 4, 3.5, 5, 3, 30]), (2, 3), sampling_ratio=2)


@CASES.add("list-of-boxes", "quick")
def _(g):
    per_image = [rois(g, n, 1, 10, 8)[:, 1:] for n in (2, 0, 3)]
    return arguments(features(g, 3, 4, 8, 10), per_image, (2, 3), sampling_ratio=1)


@CASES.add("list-of-bfloat16-boxes")  # which holds no image index above 256 exactly
def _(g):
    per_image = [rois(g, 1, 1, 3, 2)[:, 1:].bfloat16() for _ in range(300)]
    return arguments(features(g, 300, 1, 2, 3), per_image, 1, sampling_ratio=1)


@CASES.add("many-small-boxes")
def _(g):
    boxes = rois(g, 120, 3, 31, 17, smallest=0.1, largest=6)
    return arguments(features(g, 3, 8, 17, 31), boxes, (2, 2), sampling_ratio=2)


@CASES.add("overlapping-boxes")  # each pixel's gradient is a sum over all of them
def _(g):
    boxes = tensor(0, 12, 9, 16, 11, 20).repeat(40, 1) + uniform(g, -0.5, 0.5, 40, 6) * tensor(0, 1, 1, 1, 1, 30)
    return arguments(features(g, 1, 5, 18, 25), boxes, (7, 7), sampling_ratio=2)


# Every sampling ratio with both alignments and directions.


def _sampling(ratio: int, aligned: bool, clockwise: bool):
    def make(g):
        options = {"spatial_scale": 0.5, "sampling_ratio": ratio, "aligned": aligned, "clockwise": clockwise}
        return arguments(features(g, 2, 9, 24, 31), rois(g, 12, 2, 62, 48, smallest=0.5), (3, 5), **options)

    return make


for _ratio in (-1, 0, 1, 2, 3):
    for _aligned in (False, True):
        _label = f"sampling={_ratio}-{'aligned' if _aligned else 'unaligned'}"
        CASES.add(_label, "", _sampling(_ratio, _aligned, _aligned == (_ratio > 1)))


@CASES.add("adaptive", "quick")
def _(g):
    return arguments(features(g, 2, 5, 8, 9), rois(g, 5, 2, 18, 16), (2, 3), spatial_scale=0.5, clockwise=True)


@CASES.add("sampling=20")
def _(g):
    return arguments(features(g, 1, 3, 12, 14), rois(g, 4, 1, 14, 12), (2, 2), sampling_ratio=20)


@CASES.add("far-samples")  # few samples, tens of pixels apart
def _(g):
    return arguments(features(g, 1, 3, 60, 64), rois(g, 4, 1, 64, 60, 30, 90), (2, 2), sampling_ratio=2)


@CASES.add("quarter-turns", "quick")  # exact, on the edges too: samples at -1, 0, extent - 1 and extent
def _(g):
    turns = tensor(0, 90, -90, 180, 270, 360, -720, 1e6 * 360 + 90)
    rows = torch.cat([tensor([0, 1, 2, 4, 6], [0, 6.5, 3, 4, 2], [0, 7.5, 5.5, 2, 2])] * len(turns))
    boxes = torch.cat([rows, turns.reshape(-1, 1).repeat_interleave(3, 0)], 1)
    return arguments(features(g, 1, 3, 6, 8), boxes, (2, 2), sampling_ratio=1)


@CASES.add("every-degree")
def _(g):
    angles = torch.arange(0, 360, 3, dtype=torch.float64)[:, None]
    boxes = torch.cat([tensor([0, 12, 10, 14, 8]).expand(len(angles), 5), angles], 1)
    return arguments(features(g, 1, 4, 20, 23), boxes, (3, 4), sampling_ratio=2, aligned=False)


# Odd sizes: vector tails, single pixels, single rows.


def _shape(n: int, c: int, h: int, w: int, pooled: object, ratio: int = 2, aligned: bool = False):
    def make(g):
        boxes = rois(g, 6, n, w, h, smallest=0.2, largest=1.2 * max(w, h))
        return arguments(features(g, n, c, h, w), boxes, pooled, sampling_ratio=ratio, aligned=aligned)

    return make


for _channels in (1, 3, 17, 257):
    CASES.add(f"channels={_channels}", "", _shape(1, _channels, 11, 13, (7, 7)))
CASES.add("channels=8-aligned", "", _shape(2, 8, 9, 10, (4, 4), -1, True))
CASES.add("channels=16-rows", "", _shape(2, 16, 9, 10, (1, 7), -1))
CASES.add("channels=64", "", _shape(1, 64, 9, 10, (2, 2)))
for _h, _w in ((1, 1), (1, 9), (9, 1), (2, 2)):
    CASES.add(f"map={_h}x{_w}", "quick" if _h == _w == 1 else "", _shape(2, 4, _h, _w, (3, 3)))
for _pooled in ((1, 1), (3, 5), (14, 14), (2, 33)):
    CASES.add(f"pooled={_pooled[0]}x{_pooled[1]}", "", _shape(1, 7, 15, 19, _pooled, -1, True))


# Small enough for numerical derivatives.


@CASES.add("gradient", "gradient quick")
def _(g):
    return arguments(features(g, 2, 2, 5, 6), rois(g, 3, 2, 6, 5), (2, 3), sampling_ratio=2)


@CASES.add("gradient-adaptive", "gradient")
def _(g):
    boxes = rois(g, 3, 1, 12, 10, smallest=0.3)
    return arguments(features(g, 1, 3, 5, 6), boxes, (2, 2), spatial_scale=0.5, aligned=False)


@CASES.add("gradient-outside", "gradient hostile")  # partly outside the map, and a box that is not finite
def _(g):
    boxes = tensor([0, 0, 1, 6, 6, 40], [0, 6, 6, 6, 7, -70], [0, 2, 2, 4, 4, NAN])
    return arguments(features(g, 1, 2, 4, 5), boxes, (2, 2), sampling_ratio=1)


# Where boxes and map meet.


@CASES.add("outside")
def _(g):
    boxes = tensor([0, -35, -35, 30, 30, 45], [0, 115, 4, 30, 4, 10], [0, 4, -85, 4, 10, 80], [0, 5, 4, 50, 50, 33])
    return arguments(features(g, 1, 4, 9, 11), boxes, (3, 3))


@CASES.add("untouched-nan")  # pixels with no weight hold NaN, which must not leak into the result
def _(g):
    map_ = torch.full((1, 5, 16, 18), NAN, dtype=torch.float64)
    map_[0, :, 4:12, 5:13] = features(g, 1, 5, 8, 8)[0]
    boxes = tensor([0, 9, 8, 6, 5, 90], [0, 9, 8, 4, 4, 45], [0, 9, 8, 5, 3, 200])
    return arguments(map_, boxes, (3, 4), sampling_ratio=2)


# Empty.


@CASES.add("no-boxes", "empty quick")
def _(g):
    return arguments(features(g, 2, 3, 8, 9), torch.empty(0, 6, dtype=torch.float64), (7, 7))


@CASES.add("no-boxes-list", "empty")
def _(g):
    return arguments(features(g, 2, 3, 8, 9), [torch.empty(0, 5, dtype=torch.float64)] * 2, (7, 7))


@CASES.add("no-images", "empty")
def _(g):
    return arguments(features(g, 0, 3, 8, 9), torch.empty(0, 6, dtype=torch.float64), (7, 7), sampling_ratio=2)


@CASES.add("no-channels", "empty")
def _(g):
    return arguments(features(g, 2, 0, 8, 9), rois(g, 4, 2, 9, 8), (7, 7), sampling_ratio=2)


def _zero_area(aligned: bool, ratio: int):
    def make(g):
        boxes = tensor([0, 3, 2, 0, 0, 10], [0, 2, 5, 3, 0, 20], [0, 4, 3, 0, 5, 30], [0, 3.3, 2.7, 0, 0, 0])
        return arguments(features(g, 1, 3, 8, 9), boxes, (2, 2), sampling_ratio=ratio, aligned=aligned)

    return make


CASES.add("zero-area", "", _zero_area(False, -1))
CASES.add("zero-area-aligned", "", _zero_area(True, -1))
CASES.add("zero-area-sampled", "", _zero_area(True, 2))


# Hostile: nothing here may crash, hang, or read out of bounds.

NON_FINITE: Rows = (
    [0, NAN, 1, 4, 5, 10],
    [1, 1, NAN, 4, 5, 10],
    [0, 1, 1, NAN, 5, 10],
    [0, 1, 1, 4, NAN, 10],
    [0, 1, 1, 4, 4, NAN],
    [1, NAN, NAN, NAN, NAN, NAN],
    [0, INF, 1, 4, 5, 10],
    [1, 1, -INF, 4, 5, 10],
    [1, 1, 1, INF, 5, 10],
    [0, 3, 3, 4, 5, INF],
    [0, 3, 3, 4, 5, -INF],
)
INVERTED: Rows = (
    [0, 4, 3, -4, 4, 20],
    [1, 3, 4, 3, -2, 50],
    [0, 4, 3, -6, -4, 110],
    [0, 5, 6, -0.25, -0.25, 3],
    [1, 0, 3, -80, 4, -10],
)
HUGE: Rows = (
    [0, 0, 0, 2e30, 2e30, 30],
    [0, 5e29, 2, 1e30, 4, 5],
    [1, 1e30, 1, 4, 5, 60],
    [0, 0, 3, 3e38, 4, 90],
    [1, 0, 0, -2e9, -2e9, 12],
    [0, 0, 0, 2e6, 2e6, 77],
    [0, 2147483647, 1, 4, 5, 0],
    [1, 4, 4, 5, 3, 1e30],
    [1, 4, 4, 5, 3, -3e38],
)
TINY: Rows = (
    [0, 1e-30, 1e-30, 1e-30, 1e-30, 1e-30],
    [0, 3, 2, 1e-6, 1e-6, 45],
    [1, -1e-38, -1e-38, 2e-38, 2e-38, -1e-38],
    [0, 3, 2, 1e-45, 5, 45],
)
ORDINARY = [1, 3.5, 4, 3.75, 4, 25]  # a hostile neighbour must not disturb it


def _hostile(rows: Rows, ratio: int, aligned: bool):
    def make(g):
        boxes = tensor(*rows, ORDINARY)
        return arguments(features(g, 2, 4, 8, 9), boxes, (3, 2), sampling_ratio=ratio, aligned=aligned)

    return make


for _name, _rows in (("non-finite", NON_FINITE), ("inverted", INVERTED), ("huge", HUGE), ("tiny", TINY)):
    for _aligned in (False, True):
        for _ratio in (-1, 2):
            _label = f"{_name}-{'aligned' if _aligned else 'unaligned'}-{'adaptive' if _ratio < 0 else 'sampled'}"
            _tags = "hostile quick" if _aligned and _ratio < 0 and _name in ("non-finite", "huge") else "hostile"
            CASES.add(_label, _tags, _hostile(_rows, _ratio, _aligned))


@CASES.add("huge-scale", "hostile")
def _(g):
    return arguments(features(g, 1, 3, 8, 9), rois(g, 5, 1, 9, 8), (2, 2), spatial_scale=1e30)


@CASES.add("tiny-scale", "hostile")
def _(g):
    return arguments(features(g, 1, 3, 8, 9), rois(g, 5, 1, 9, 8), (2, 2), spatial_scale=1e-30, aligned=False)


@CASES.add("most-samples", "hostile")
def _(g):
    return arguments(features(g, 1, 2, 8, 9), tensor([0, 4, 4, 5, 3, 20]), 1, sampling_ratio=256)


# Large: coordinate precision shows here (a float32 coordinate at 300 px is wrong by up to 1.5e-5 px).


@CASES.add("large-map", "large")
def _(g):
    boxes = rois(g, 48, 1, 4 * 304, 4 * 200, smallest=16, largest=448)
    return arguments(features(g, 1, 16, 200, 304), boxes, (7, 7), spatial_scale=0.25, sampling_ratio=2)


@CASES.add("large-map-adaptive", "large")
def _(g):
    boxes = rois(g, 12, 1, 8 * 304, 8 * 200, smallest=16, largest=1200)
    return arguments(features(g, 1, 12, 200, 304), boxes, (14, 14), spatial_scale=0.125)


@CASES.add("large-channels", "large")
def _(g):
    boxes = rois(g, 24, 2, 16 * 50, 16 * 38, smallest=32, largest=400)
    return arguments(features(g, 2, 256, 38, 50), boxes, (7, 7), spatial_scale=1 / 16, sampling_ratio=2)


# Arguments that must be refused.


def _refused(**changes: object):
    def make() -> Arguments:
        good = arguments(torch.zeros(2, 3, 8, 9), torch.tensor([[0.0, 3, 3, 4, 4, 10]]), (7, 7), sampling_ratio=2)
        return {**good, **changes}

    return make


def _refused_backward(**changes: object):
    def make() -> Arguments:
        good = {
            "grad": torch.zeros(1, 3, 2, 2),
            "rois": torch.tensor([[0.0, 3, 3, 4, 4, 10]]),
            "spatial_scale": 1.0,
            "pooled_height": 2,
            "pooled_width": 2,
            "batch_size": 1,
            "channels": 3,
            "height": 8,
            "width": 9,
            "sampling_ratio": 2,
            "aligned": False,
            "clockwise": False,
        }
        return {**good, **changes}

    return make


def _index(value: float) -> torch.Tensor:
    return torch.tensor([[0.0, 3, 3, 4, 4, 10], [value, 3, 3, 4, 4, 10]])


OUTSIDE = r"boxes\[{}, 0\] is batch index .*must be in \[0, {}\)"
BACKWARD = "roi_align_rotated_backward"
COLUMNS = r"boxes must be \[K, 6\] \(batch index, centre x, centre y, width, height, angle\)"

ERRORS = (
    ErrorCase("input-rank", _refused(input=torch.zeros(3, 8, 9)), r"input must be \[N, C, H, W\]"),
    ErrorCase("input-integer", _refused(input=torch.zeros(2, 3, 8, 9, dtype=torch.int64)), r"input must be float16"),
    ErrorCase("boxes-rank", _refused(boxes=torch.zeros(6)), COLUMNS),
    ErrorCase("boxes-width", _refused(boxes=torch.zeros(2, 5)), COLUMNS),
    ErrorCase("boxes-integer", _refused(boxes=torch.zeros(2, 6, dtype=torch.int64)), r"boxes must be float"),
    ErrorCase("boxes-empty-list", _refused(boxes=[]), r"boxes must hold one tensor per image"),
    ErrorCase("boxes-list-width", _refused(boxes=[torch.zeros(1, 6)]), r"boxes\[0\] must be \[L, 5\]"),
    ErrorCase("boxes-list-too-long", _refused(boxes=[torch.zeros(1, 5)] * 3), OUTSIDE.format(2, 2), "cpu"),
    ErrorCase("index-too-large", _refused(boxes=_index(2)), OUTSIDE.format(1, 2), "cpu"),
    ErrorCase("index-negative", _refused(boxes=_index(-1)), OUTSIDE.format(1, 2), "cpu"),
    ErrorCase("index-nan", _refused(boxes=_index(NAN)), OUTSIDE.format(1, 2), "cpu"),
    ErrorCase("boxes-device", _refused(boxes=torch.zeros(2, 6, device="meta")), r"boxes must be on the same device"),
    ErrorCase("output-size-zero", _refused(output_size=(0, 7)), r"output_size must be positive"),
    ErrorCase("output-size-overflow", _refused(output_size=(2**32, 2**32)), r"output_size must be at most"),
    ErrorCase("output-size-length", _refused(output_size=(7, 7, 7)), r"output_size must be an int or a pair of ints"),
    ErrorCase("output-size-type", _refused(output_size=1.5), r"output_size must be an int or a pair of ints"),
    ErrorCase("spatial-scale-zero", _refused(spatial_scale=0.0), r"spatial_scale must be positive and finite"),
    ErrorCase("spatial-scale-inf", _refused(spatial_scale=INF), r"spatial_scale must be positive and finite"),
    ErrorCase("sampling-huge", _refused(sampling_ratio=257), r"sampling_ratio must be at most 256"),
    ErrorCase("boxes-none", _refused(boxes=None), r"boxes must be a tensor or a list of tensors"),
    ErrorCase("grad-rank", _refused_backward(grad=torch.zeros(3, 2, 2)), r"grad must be", op=BACKWARD),
    ErrorCase("grad-size", _refused_backward(grad=torch.zeros(1, 4, 2, 2)), r"grad must be", op=BACKWARD),
    ErrorCase("grad-index", _refused_backward(rois=_index(1)[1:]), OUTSIDE.format(0, 1), "cpu", BACKWARD),
    ErrorCase("grad-input-size", _refused_backward(height=-1), r"input size must not be negative", op=BACKWARD),
)


SPECS = (
    OpSpec(
        name="roi_align_rotated",
        function=roi_align_rotated,
        dispatcher_ops=("roi_align_rotated", "roi_align_rotated_backward"),
        cases=tuple(CASES),
        errors=ERRORS,
        data=("input",),
        layouts=("input",),
        differentiable=("input",),
    ),
)
