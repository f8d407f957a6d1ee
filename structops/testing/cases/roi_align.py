"""Cases of RoI Align."""

from __future__ import annotations

import torch

from structops.ops import roi_align
from structops.testing.cases._draw import INF, NAN, CaseList, features, rois, tensor, uniform
from structops.testing.spec import Arguments, ErrorCase, OpSpec

CASES = CaseList()
Rows = tuple[list[float], ...]


def arguments(input: torch.Tensor, boxes: object, output_size: object, **options: object) -> Arguments:
    return {"input": input, "boxes": boxes, "output_size": output_size, **options}


# Typical: a detector's box head on one pyramid level, its mask head, a C4 head, a one-stage face detector's crops.


@CASES.add("box-head")
def _(g):
    boxes = rois(g, 24, 2, 4 * 42, 4 * 25, smallest=16, largest=112)
    return arguments(features(g, 2, 32, 25, 42), boxes, (7, 7), spatial_scale=0.25, sampling_ratio=2)


@CASES.add("mask-head")
def _(g):
    boxes = rois(g, 10, 1, 8 * 42, 8 * 25, smallest=16, largest=224)
    return arguments(features(g, 1, 24, 25, 42), boxes, (14, 14), spatial_scale=0.125, sampling_ratio=2, aligned=True)


@CASES.add("c4-head")
def _(g):
    boxes = rois(g, 8, 1, 16 * 42, 16 * 25, smallest=32, largest=500)
    return arguments(features(g, 1, 64, 25, 42), boxes, 14, spatial_scale=1 / 16, sampling_ratio=0, aligned=True)


@CASES.add("defaults")
def _(g):
    return arguments(features(g, 2, 4, 20, 23), rois(g, 9, 2, 23, 20), 5)


@CASES.add("list-of-boxes", "quick")
def _(g):
    per_image = [rois(g, n, 1, 9, 7)[:, 1:] for n in (2, 0, 1)]
    return arguments(features(g, 3, 6, 7, 9), per_image, (2, 3), sampling_ratio=2)


@CASES.add("list-of-bfloat16-boxes")  # which holds no image index above 256 exactly
def _(g):
    per_image = [rois(g, 1, 1, 3, 2)[:, 1:].bfloat16() for _ in range(300)]
    return arguments(features(g, 300, 1, 2, 3), per_image, 1, sampling_ratio=1)


@CASES.add("many-small-boxes")
def _(g):
    boxes = rois(g, 120, 3, 31, 17, smallest=0.1, largest=6)
    return arguments(features(g, 3, 8, 17, 31), boxes, (2, 2), sampling_ratio=2, aligned=True)


@CASES.add("overlapping-boxes")  # each pixel's gradient is a sum over all of them
def _(g):
    boxes = tensor(0, 4, 3, 20, 14).repeat(40, 1) + uniform(g, -0.5, 0.5, 40, 5) * tensor(0, 1, 1, 1, 1)
    return arguments(features(g, 1, 5, 18, 25), boxes, (7, 7), sampling_ratio=2)


# Every sampling ratio with both alignments.


def _sampling(ratio: int, aligned: bool):
    def make(g):
        boxes = rois(g, 12, 2, 2 * 31, 2 * 24, smallest=0.5)
        map_ = features(g, 2, 9, 24, 31)
        return arguments(map_, boxes, (3, 5), spatial_scale=0.5, sampling_ratio=ratio, aligned=aligned)

    return make


for _ratio in (-1, 0, 1, 2, 3):
    for _aligned in (False, True):
        _tags = "quick" if (_ratio, _aligned) == (-1, True) else ""
        CASES.add(f"sampling={_ratio}-{'aligned' if _aligned else 'unaligned'}", _tags, _sampling(_ratio, _aligned))


@CASES.add("sampling=20")
def _(g):
    return arguments(features(g, 1, 3, 12, 14), rois(g, 4, 1, 14, 12), (2, 2), sampling_ratio=20)


# Odd sizes: vector tails, single pixels, single rows.


def _shape(n: int, c: int, h: int, w: int, pooled: object, ratio: int = 2, aligned: bool = False):
    def make(g):
        boxes = rois(g, 6, n, w, h, smallest=0.2, largest=1.2 * max(w, h))
        return arguments(features(g, n, c, h, w), boxes, pooled, sampling_ratio=ratio, aligned=aligned)

    return make


for _channels in (1, 3, 5, 17, 257):
    CASES.add(f"channels={_channels}", "quick" if _channels == 5 else "", _shape(1, _channels, 11, 13, (7, 7)))
CASES.add("channels=8-aligned", "", _shape(2, 8, 9, 10, (4, 4), -1, True))
CASES.add("channels=16-rows", "", _shape(2, 16, 9, 10, (1, 7), -1))
CASES.add("channels=31-columns", "", _shape(2, 31, 9, 10, (7, 1), 1, True))
CASES.add("channels=64", "", _shape(1, 64, 9, 10, (2, 2)))
for _h, _w in ((1, 1), (1, 9), (9, 1), (2, 2)):
    CASES.add(f"map={_h}x{_w}", "quick" if _h == _w == 1 else "", _shape(2, 4, _h, _w, (3, 3)))
for _pooled in ((1, 1), (3, 5), (14, 14), (2, 33)):
    CASES.add(f"pooled={_pooled[0]}x{_pooled[1]}", "", _shape(1, 7, 15, 19, _pooled, -1, True))


@CASES.add("one-box", "quick")
def _(g):
    return arguments(features(g, 1, 3, 8, 8), tensor([0, 1.5, 2, 6.25, 7]), (7, 7), sampling_ratio=2)


# Small enough for numerical derivatives.


@CASES.add("gradient", "gradient quick")
def _(g):
    boxes = rois(g, 3, 2, 6, 5)
    return arguments(features(g, 2, 2, 5, 6), boxes, (2, 3), sampling_ratio=2)


@CASES.add("gradient-adaptive", "gradient")
def _(g):
    boxes = rois(g, 3, 1, 12, 10, smallest=0.3)
    return arguments(features(g, 1, 3, 5, 6), boxes, (2, 2), spatial_scale=0.5, aligned=True)


@CASES.add("gradient-outside", "gradient hostile")  # partly outside the map, and a box that is not finite
def _(g):
    boxes = tensor([0, -3, -2, 3, 4], [0, 3, 2, 9, 9], [0, NAN, 0, 4, 4])
    return arguments(features(g, 1, 2, 4, 5), boxes, (2, 2), sampling_ratio=1)


# Where boxes and map meet.


@CASES.add("edges", "quick")  # samples exactly at -1, 0, extent - 1 and extent: the inside test and the last pixel
def _(g):
    low, w, h = tensor(-3, -2, -1.5, -1, -0.5, 0, 0.5), 8, 6
    starts = torch.cat([low, low + w, low + w - 1, low + h])
    boxes = torch.stack([0 * starts, starts, starts, starts + 2, starts + 2], 1)
    return arguments(features(g, 1, 3, h, w), boxes, (2, 2), sampling_ratio=1)


@CASES.add("edges-aligned")
def _(g):
    starts = torch.arange(-3, 10, 0.5, dtype=torch.float64)
    boxes = torch.stack([0 * starts, starts, starts, starts + 2, starts + 3], 1)
    return arguments(features(g, 1, 3, 6, 8), boxes, (2, 3), sampling_ratio=2, aligned=True)


@CASES.add("outside")
def _(g):
    boxes = tensor([0, -50, -50, -20, -20], [0, 100, 2, 130, 6], [0, 2, -90, 6, -80], [0, -10, -10, 40, 40])
    return arguments(features(g, 1, 4, 9, 11), boxes, (3, 3))


@CASES.add("whole-map")
def _(g):
    return arguments(features(g, 2, 4, 33, 47), tensor([0, 0, 0, 47, 33], [1, 0, 0, 46, 32]), (7, 7), aligned=True)


@CASES.add("untouched-nan")  # pixels with no weight hold NaN, which must not leak into the result
def _(g):
    map_ = torch.full((2, 5, 16, 18), NAN, dtype=torch.float64)
    map_[0, :, 4:10, 5:13] = features(g, 1, 5, 6, 8)[0]
    boxes = tensor([0, 5, 4, 12, 9], [0, 6.5, 4.25, 11.75, 8.5])
    return arguments(map_, boxes, (3, 4), sampling_ratio=2)


# Empty.


@CASES.add("no-boxes", "empty quick")
def _(g):
    return arguments(features(g, 2, 3, 8, 9), torch.empty(0, 5, dtype=torch.float64), (7, 7))


@CASES.add("no-boxes-list", "empty")
def _(g):
    return arguments(features(g, 2, 3, 8, 9), [torch.empty(0, 4, dtype=torch.float64)] * 2, (7, 7))


@CASES.add("no-images", "empty")
def _(g):
    return arguments(features(g, 0, 3, 8, 9), torch.empty(0, 5, dtype=torch.float64), (7, 7), sampling_ratio=2)


@CASES.add("no-channels", "empty")
def _(g):
    return arguments(features(g, 2, 0, 8, 9), rois(g, 4, 2, 9, 8), (7, 7), sampling_ratio=2)


def _zero_area(aligned: bool, ratio: int):
    def make(g):
        boxes = tensor([0, 3, 2, 3, 2], [0, 1, 5, 4, 5], [0, 4, 1, 4, 6], [0, 3.3, 2.7, 3.3, 2.7])
        return arguments(features(g, 1, 3, 8, 9), boxes, (2, 2), sampling_ratio=ratio, aligned=aligned)

    return make


CASES.add("zero-area", "", _zero_area(False, -1))
CASES.add("zero-area-aligned", "quick", _zero_area(True, -1))
CASES.add("zero-area-sampled", "", _zero_area(True, 2))


# Hostile: nothing here may crash, hang, or read out of bounds.

NON_FINITE: Rows = (
    [0, NAN, 1, 4, 5],
    [1, 1, NAN, 4, 5],
    [0, 1, 1, NAN, 5],
    [0, 1, 1, 4, NAN],
    [1, NAN, NAN, NAN, NAN],
    [0, INF, 1, 4, 5],
    [0, -INF, 1, 4, 5],
    [1, 1, 1, INF, 5],
    [0, -INF, -INF, INF, INF],
    [0, INF, INF, -INF, -INF],
)
INVERTED: Rows = ([0, 6, 1, 2, 5], [1, 1, 7, 4, 2], [0, 7, 6, 1, 2], [0, 5.5, 6.5, 5.25, 6.25], [1, 40, 1, -40, 5])
HUGE: Rows = (
    [0, -1e30, -1e30, 1e30, 1e30],
    [0, 0, 0, 1e30, 4],
    [1, 1e30, 1, 2e30, 5],
    [0, -3e38, 1, 3e38, 5],
    [1, 1e9, 1e9, -1e9, -1e9],
    [0, -1e6, -1e6, 1e6, 1e6],
    [0, 2147483647, 1, 2147483648, 5],
    [1, -4e9, 2, 4e9, 6],
)
TINY: Rows = ([0, 1e-30, 1e-30, 2e-30, 2e-30], [0, 3, 2, 3 + 1e-6, 2 + 1e-6], [1, -1e-38, -1e-38, 1e-38, 1e-38])
ORDINARY = [1, 1.5, 2, 5.25, 6]  # a hostile neighbour must not disturb it


def _hostile(rows: Rows, ratio: int, aligned: bool):
    def make(g):
        boxes = tensor(*rows, ORDINARY)
        return arguments(features(g, 2, 5, 8, 9), boxes, (3, 2), sampling_ratio=ratio, aligned=aligned)

    return make


for _name, _rows in (("non-finite", NON_FINITE), ("inverted", INVERTED), ("huge", HUGE), ("tiny", TINY)):
    for _aligned in (False, True):
        for _ratio in (-1, 2):
            _label = f"{_name}-{'aligned' if _aligned else 'unaligned'}-{'adaptive' if _ratio < 0 else 'sampled'}"
            _tags = "hostile quick" if _aligned and _ratio < 0 and _name != "tiny" else "hostile"
            CASES.add(_label, _tags, _hostile(_rows, _ratio, _aligned))


@CASES.add("huge-scale", "hostile")
def _(g):
    boxes = rois(g, 5, 1, 9, 8)
    return arguments(features(g, 1, 3, 8, 9), boxes, (2, 2), spatial_scale=1e30, aligned=True)


@CASES.add("tiny-scale", "hostile")
def _(g):
    boxes = rois(g, 5, 1, 9, 8)
    return arguments(features(g, 1, 3, 8, 9), boxes, (2, 2), spatial_scale=1e-30)


# Large: coordinate precision shows here (a float32 coordinate at 300 px is wrong by up to 1.5e-5 px).


@CASES.add("large-map", "large")
def _(g):
    boxes = rois(g, 48, 1, 4 * 304, 4 * 200, smallest=16, largest=448)
    return arguments(features(g, 1, 16, 200, 304), boxes, (7, 7), spatial_scale=0.25, sampling_ratio=2)


@CASES.add("large-map-adaptive", "large")
def _(g):
    boxes = rois(g, 24, 1, 8 * 304, 8 * 200, smallest=16, largest=1200)
    return arguments(features(g, 1, 12, 200, 304), boxes, (14, 14), spatial_scale=0.125, aligned=True)


@CASES.add("large-channels", "large")
def _(g):
    boxes = rois(g, 24, 2, 16 * 50, 16 * 38, smallest=32, largest=400)
    return arguments(features(g, 2, 256, 38, 50), boxes, (7, 7), spatial_scale=1 / 16, sampling_ratio=2)


# Arguments that must be refused.


def _refused(**changes: object):
    def make() -> Arguments:
        good = arguments(torch.zeros(2, 3, 8, 9), torch.tensor([[0.0, 1, 1, 5, 5]]), (7, 7), sampling_ratio=2)
        return {**good, **changes}

    return make


def _refused_backward(**changes: object):
    def make() -> Arguments:
        good = {
            "grad": torch.zeros(1, 3, 2, 2),
            "rois": torch.tensor([[0.0, 1, 1, 5, 5]]),
            "spatial_scale": 1.0,
            "pooled_height": 2,
            "pooled_width": 2,
            "batch_size": 1,
            "channels": 3,
            "height": 8,
            "width": 9,
            "sampling_ratio": 2,
            "aligned": False,
        }
        return {**good, **changes}

    return make


def _index(value: float) -> torch.Tensor:
    return torch.tensor([[0.0, 1, 1, 5, 5], [value, 1, 1, 5, 5]])


OUTSIDE = r"boxes\[{}, 0\] is batch index .*must be in \[0, {}\)"
BACKWARD = "roi_align_backward"

ERRORS = (
    ErrorCase("input-rank", _refused(input=torch.zeros(3, 8, 9)), r"input must be \[N, C, H, W\]"),
    ErrorCase("input-integer", _refused(input=torch.zeros(2, 3, 8, 9, dtype=torch.int64)), r"input must be float16"),
    ErrorCase("boxes-rank", _refused(boxes=torch.zeros(5)), r"boxes must be \[K, 5\]"),
    ErrorCase("boxes-width", _refused(boxes=torch.zeros(2, 4)), r"boxes must be \[K, 5\]"),
    ErrorCase("boxes-integer", _refused(boxes=torch.zeros(2, 5, dtype=torch.int64)), r"boxes must be float"),
    ErrorCase("boxes-empty-list", _refused(boxes=[]), r"boxes must hold one tensor per image"),
    ErrorCase("boxes-list-width", _refused(boxes=[torch.zeros(1, 5)]), r"boxes\[0\] must be \[L, 4\]"),
    ErrorCase("boxes-list-type", _refused(boxes=[[0, 0, 1, 1]]), r"boxes\[0\] must be \[L, 4\]"),
    ErrorCase("boxes-list-too-long", _refused(boxes=[torch.zeros(1, 4)] * 3), OUTSIDE.format(2, 2), "cpu"),
    ErrorCase("index-too-large", _refused(boxes=_index(2)), OUTSIDE.format(1, 2), "cpu"),
    ErrorCase("index-negative", _refused(boxes=_index(-1)), OUTSIDE.format(1, 2), "cpu"),
    ErrorCase("index-nan", _refused(boxes=_index(NAN)), OUTSIDE.format(1, 2), "cpu"),
    ErrorCase("index-huge", _refused(boxes=_index(1e30)), OUTSIDE.format(1, 2), "cpu"),
    ErrorCase("boxes-device", _refused(boxes=torch.zeros(2, 5, device="meta")), r"boxes must be on the same device"),
    ErrorCase("output-size-zero", _refused(output_size=(0, 7)), r"output_size must be positive"),
    ErrorCase("output-size-overflow", _refused(output_size=(2**32, 2**32)), r"output_size must be at most"),
    ErrorCase("output-size-negative", _refused(output_size=-3), r"output_size must be positive"),
    ErrorCase("output-size-length", _refused(output_size=(7, 7, 7)), r"output_size must be an int or a pair of ints"),
    ErrorCase("output-size-type", _refused(output_size=1.5), r"output_size must be an int or a pair of ints"),
    ErrorCase("output-size-pair-type", _refused(output_size=(7.0, 7)), r"output_size must be an int or a pair of ints"),
    ErrorCase("spatial-scale-zero", _refused(spatial_scale=0.0), r"spatial_scale must be positive and finite"),
    ErrorCase("spatial-scale-nan", _refused(spatial_scale=NAN), r"spatial_scale must be positive and finite"),
    ErrorCase("spatial-scale-inf", _refused(spatial_scale=INF), r"spatial_scale must be positive and finite"),
    ErrorCase("sampling-huge", _refused(sampling_ratio=2**40), r"sampling_ratio must be at most 65536"),
    ErrorCase("boxes-none", _refused(boxes=None), r"boxes must be a tensor or a list of tensors"),
    ErrorCase("grad-rank", _refused_backward(grad=torch.zeros(3, 2, 2)), r"grad must be", op=BACKWARD),
    ErrorCase("grad-size", _refused_backward(grad=torch.zeros(1, 4, 2, 2)), r"grad must be", op=BACKWARD),
    ErrorCase("grad-index", _refused_backward(rois=_index(1)[1:]), OUTSIDE.format(0, 1), "cpu", BACKWARD),
    ErrorCase("grad-input-size", _refused_backward(height=-1), r"input size must not be negative", op=BACKWARD),
)


def _torchvision(input, boxes, output_size, spatial_scale=1.0, sampling_ratio=-1, aligned=False):
    import torchvision

    if not isinstance(boxes, torch.Tensor):
        boxes = [b.to(input) for b in boxes]  # torchvision takes no mix of types
    return torchvision.ops.roi_align(input, boxes, output_size, spatial_scale, sampling_ratio, aligned)


SPECS = (
    OpSpec(
        name="roi_align",
        function=roi_align,
        dispatcher_ops=("roi_align", "roi_align_backward"),
        cases=tuple(CASES),
        errors=ERRORS,
        data=("input",),
        layouts=("input",),
        differentiable=("input",),
        peer={"torchvision": _torchvision},
    ),
)
