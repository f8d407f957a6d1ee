"""Cases of RoI Pool.

torchvision computes the edges of bins in floating point, which for some lengths (29 pixels into 7 bins) takes a pixel
too many; and corners in the input's type. Cases that it is held against have power-of-two scales, and 7 or 14 bins over
fewer than 29 pixels only.
"""

from __future__ import annotations

import torch

from structops.ops import roi_pool
from structops.testing.cases._draw import INF, NAN, CaseList, features, rois, tensor, uniform
from structops.testing.cases.roi_align import HUGE, INVERTED, NON_FINITE, ORDINARY, TINY, Rows
from structops.testing.spec import Arguments, ErrorCase, OpSpec

CASES = CaseList()


def arguments(input: torch.Tensor, boxes: object, output_size: object, **options: object) -> Arguments:
    return {"input": input, "boxes": boxes, "output_size": output_size, **options}


# Typical: a Fast R-CNN head on one pyramid level, on the last map of a backbone, with single-pixel bins.


@CASES.add("box-head")
def _(g):
    boxes = rois(g, 16, 2, 4 * 42, 4 * 25, smallest=16, largest=104)
    return arguments(features(g, 2, 32, 25, 42), boxes, (7, 7), spatial_scale=0.25)


@CASES.add("c4-head")
def _(g):
    boxes = rois(g, 6, 1, 16 * 42, 16 * 25, smallest=32, largest=430)
    return arguments(features(g, 1, 64, 25, 42), boxes, 14, spatial_scale=1 / 16)


@CASES.add("defaults")
def _(g):
    return arguments(features(g, 2, 4, 20, 23), rois(g, 9, 2, 23, 20), 5)


@CASES.add("list-of-boxes", "quick")
def _(g):
    per_image = [rois(g, n, 1, 9, 8)[:, 1:] for n in (2, 0, 3)]
    return arguments(features(g, 3, 5, 8, 9), per_image, (2, 3))


@CASES.add("many-small-boxes")
def _(g):
    boxes = rois(g, 120, 3, 31, 17, smallest=0.1, largest=6)
    return arguments(features(g, 3, 8, 17, 31), boxes, (2, 2))


@CASES.add("overlapping-boxes")  # each maximum's gradient is a sum over most of them
def _(g):
    boxes = tensor(0, 4, 3, 20, 14).repeat(40, 1) + uniform(g, -0.5, 0.5, 40, 5) * tensor(0, 1, 1, 1, 1)
    return arguments(features(g, 1, 5, 18, 25), boxes, (7, 7))


# The first of equal values, in row order, is the maximum.


@CASES.add("ties", "quick")
def _(g):
    map_ = torch.randint(-1, 2, (1, 5, 9, 10), generator=g).double()
    return arguments(map_, rois(g, 5, 1, 10, 9, smallest=4), (2, 2))


@CASES.add("constant")
def _(g):
    map_ = torch.full((1, 19, 21, 40), -2.5, dtype=torch.float64)
    return arguments(map_, tensor([0, 1, 2, 38, 19], [0, 5, 5, 9, 12], [0, -9, 3, 60, 30]), (3, 4))


@CASES.add("signed-zeros")
def _(g):
    map_ = torch.zeros(1, 17, 12, 21, dtype=torch.float64)
    return arguments(torch.where(torch.rand(map_.shape, generator=g) < 0.5, map_, -map_), rois(g, 6, 1, 21, 12), (3, 3))


# Odd sizes: vector tails, single pixels, single rows; RoIs of one, of two and of more vectors of columns.


def _shape(n: int, c: int, h: int, w: int, pooled: object, largest: float = 1.2):
    def make(g):
        boxes = rois(g, 6, n, w, h, smallest=0.2, largest=largest * max(w, h))
        return arguments(features(g, n, c, h, w), boxes, pooled)

    return make


for _channels in (1, 3, 5, 17, 257):
    CASES.add(f"channels={_channels}", "quick" if _channels == 5 else "", _shape(1, _channels, 9, 8, (2, 3)))
CASES.add("channels=8", "", _shape(2, 8, 9, 10, (4, 4)))
CASES.add("channels=16-rows", "", _shape(2, 16, 9, 10, (1, 7)))
CASES.add("channels=31-columns", "", _shape(2, 31, 9, 10, (7, 1)))
CASES.add("channels=64", "", _shape(1, 64, 9, 10, (2, 2)))
for _h, _w in ((1, 1), (1, 9), (9, 1), (2, 2)):
    CASES.add(f"map={_h}x{_w}", "quick" if _h == _w == 1 else "", _shape(2, 4, _h, _w, (3, 3)))
for _pooled in ((1, 1), (3, 5), (16, 16), (2, 40)):
    CASES.add(f"pooled={_pooled[0]}x{_pooled[1]}", "", _shape(1, 7, 15, 19, _pooled))
for _w in (20, 50, 90):
    CASES.add(f"width={_w}", "", _shape(1, 6, 11, _w, (4, 5), 0.9))


@CASES.add("one-box")
def _(g):
    return arguments(features(g, 1, 3, 8, 8), tensor([0, 1.5, 2, 6.25, 7]), (7, 7))


# Small enough for numerical derivatives.


@CASES.add("gradient", "gradient quick")
def _(g):
    return arguments(features(g, 2, 2, 5, 6), rois(g, 3, 2, 6, 5), (2, 3))


@CASES.add("gradient-scaled", "gradient")
def _(g):
    return arguments(features(g, 1, 3, 5, 6), rois(g, 3, 1, 12, 10, smallest=0.3), (2, 2), spatial_scale=0.5)


@CASES.add("gradient-outside", "gradient hostile")  # partly outside the map, and a box that is not finite
def _(g):
    boxes = tensor([0, -3, -2, 3, 4], [0, 3, 2, 9, 9], [0, NAN, 0, 4, 4])
    return arguments(features(g, 1, 2, 4, 5), boxes, (2, 2))


# Where boxes and map meet, and where corners are rounded.


@CASES.add("halves", "quick")  # rounded away from zero, on both sides of it
def _(g):
    at = torch.arange(-3.5, 4.5, 1.0, dtype=torch.float64)
    boxes = torch.stack([0 * at, at, at + 1, at + 2.5, at + 4.5], 1)
    return arguments(features(g, 1, 3, 8, 9), boxes, (2, 2))


@CASES.add("edges")
def _(g):
    starts = torch.arange(-3, 10, 0.5, dtype=torch.float64)
    boxes = torch.stack([0 * starts, starts, starts, starts + 2, starts + 3], 1)
    return arguments(features(g, 1, 3, 6, 8), boxes, (2, 3))


@CASES.add("outside")
def _(g):
    boxes = tensor([0, -50, -50, -20, -20], [0, 100, 2, 130, 6], [0, 2, -90, 6, -80], [0, -10, -10, 40, 40])
    return arguments(features(g, 1, 4, 9, 11), boxes, (3, 3))


@CASES.add("whole-map")
def _(g):
    return arguments(features(g, 2, 4, 33, 47), tensor([0, 0, 0, 47, 33], [1, 0, 0, 46, 32]), (4, 8))


# Features that are no numbers. The peer skips them, and starts from the lowest finite number.


@CASES.add("nan-features", "hostile quick")
def _(g):
    map_ = features(g, 1, 5, 9, 8)
    map_[torch.rand(map_.shape, generator=g) < 0.05] = NAN
    return arguments(map_, rois(g, 4, 1, 8, 9, smallest=2), (2, 2))


@CASES.add("infinite-features", "hostile")
def _(g):
    map_ = torch.full((1, 5, 12, 20), -INF, dtype=torch.float64)
    map_[:, 1, 3:6, 4:8] = INF
    map_[:, 2, 3:6, 4:8] = 1
    return arguments(map_, tensor([0, 1, 1, 9, 9], [0, 4, 3, 19, 11]), (3, 2))


@CASES.add("untouched-nan")  # pixels outside every bin hold NaN, which must not leak into the result
def _(g):
    map_ = torch.full((2, 5, 16, 18), NAN, dtype=torch.float64)
    map_[0, :, 4:10, 5:13] = features(g, 1, 5, 6, 8)[0]
    return arguments(map_, tensor([0, 5, 4, 12, 9], [0, 6.5, 4.25, 11.75, 8.5]), (3, 4))


# Empty.


@CASES.add("no-boxes", "empty quick")
def _(g):
    return arguments(features(g, 2, 3, 8, 9), torch.empty(0, 5, dtype=torch.float64), (7, 7))


@CASES.add("no-boxes-list", "empty")
def _(g):
    return arguments(features(g, 2, 3, 8, 9), [torch.empty(0, 4, dtype=torch.float64)] * 2, (7, 7))


@CASES.add("no-images", "empty")
def _(g):
    return arguments(features(g, 0, 3, 8, 9), torch.empty(0, 5, dtype=torch.float64), (7, 7))


@CASES.add("no-channels", "empty")
def _(g):
    return arguments(features(g, 2, 0, 8, 9), rois(g, 4, 2, 9, 8), (7, 7))


@CASES.add("no-pixels", "empty")
def _(g):
    return arguments(features(g, 2, 3, 8, 0), tensor([1, 0, 0, 4, 4], [0, NAN, 0, 4, 4]), (2, 2))


@CASES.add("zero-area")  # one pixel
def _(g):
    boxes = tensor([0, 3, 2, 3, 2], [0, 1, 5, 4, 5], [0, 4, 1, 4, 6], [0, 3.3, 2.7, 3.3, 2.7])
    return arguments(features(g, 1, 3, 8, 9), boxes, (2, 2))


# Hostile: nothing here may crash, hang, or read out of bounds.


def _hostile(rows: Rows):
    return lambda g: arguments(features(g, 2, 5, 8, 9), tensor(*rows, ORDINARY), (3, 2))


for _name, _rows in (("non-finite", NON_FINITE), ("inverted", INVERTED), ("huge", HUGE), ("tiny", TINY)):
    CASES.add(_name, "hostile quick" if _name in ("non-finite", "huge") else "hostile", _hostile(_rows))


@CASES.add("huge-scale", "hostile")
def _(g):
    return arguments(features(g, 1, 3, 8, 9), rois(g, 5, 1, 9, 8), (2, 2), spatial_scale=1e30)


@CASES.add("tiny-scale", "hostile")
def _(g):
    return arguments(features(g, 1, 3, 8, 9), rois(g, 5, 1, 9, 8), (2, 2), spatial_scale=1e-30)


# Large.


@CASES.add("large-map", "large")
def _(g):
    boxes = rois(g, 32, 1, 4 * 304, 4 * 200, smallest=16, largest=104)
    return arguments(features(g, 1, 16, 200, 304), boxes, (7, 7), spatial_scale=0.25)


@CASES.add("large-boxes", "large")
def _(g):
    boxes = rois(g, 12, 1, 8 * 304, 8 * 200, smallest=16, largest=1200)
    return arguments(features(g, 1, 12, 200, 304), boxes, (8, 4), spatial_scale=0.125)


@CASES.add("large-channels", "large")
def _(g):
    boxes = rois(g, 24, 2, 16 * 50, 16 * 38, smallest=32, largest=400)
    return arguments(features(g, 2, 256, 38, 50), boxes, (7, 7), spatial_scale=1 / 16)


# Arguments that must be refused.


def _refused(**changes: object):
    def make() -> Arguments:
        good = arguments(torch.zeros(2, 3, 8, 9), torch.tensor([[0.0, 1, 1, 5, 5]]), (7, 7))
        return {**good, **changes}

    return make


def _refused_backward(**changes: object):
    def make() -> Arguments:
        good = {
            "grad": torch.zeros(1, 3, 2, 2),
            "rois": torch.tensor([[0.0, 1, 1, 5, 5]]),
            "argmax": torch.zeros(1, 3, 2, 2, dtype=torch.int32),
            "spatial_scale": 1.0,
            "pooled_height": 2,
            "pooled_width": 2,
            "batch_size": 1,
            "channels": 3,
            "height": 8,
            "width": 9,
        }
        return {**good, **changes}

    return make


def _index(value: float) -> torch.Tensor:
    return torch.tensor([[0.0, 1, 1, 5, 5], [value, 1, 1, 5, 5]])


OUTSIDE = r"boxes\[{}, 0\] is batch index .*must be in \[0, {}\)"
BACKWARD = "roi_pool_backward"
PLANE = torch.zeros(1, 1, 1, 1).expand(2, 1, 65536, 32768)

ERRORS = (
    ErrorCase("input-rank", _refused(input=torch.zeros(3, 8, 9)), r"input must be \[N, C, H, W\]"),
    ErrorCase("input-integer", _refused(input=torch.zeros(2, 3, 8, 9, dtype=torch.int64)), r"input must be float16"),
    ErrorCase("input-plane", _refused(input=PLANE), r"input must have fewer than 2\^31 pixels a map"),
    ErrorCase("boxes-rank", _refused(boxes=torch.zeros(5)), r"boxes must be \[K, 5\]"),
    ErrorCase("boxes-width", _refused(boxes=torch.zeros(2, 4)), r"boxes must be \[K, 5\]"),
    ErrorCase("boxes-integer", _refused(boxes=torch.zeros(2, 5, dtype=torch.int64)), r"boxes must be float"),
    ErrorCase("boxes-empty-list", _refused(boxes=[]), r"boxes must hold one tensor per image"),
    ErrorCase("boxes-list-width", _refused(boxes=[torch.zeros(1, 5)]), r"boxes\[0\] must be \[L, 4\]"),
    ErrorCase("boxes-list-too-long", _refused(boxes=[torch.zeros(1, 4)] * 3), OUTSIDE.format(2, 2), "cpu"),
    ErrorCase("index-too-large", _refused(boxes=_index(2)), OUTSIDE.format(1, 2), "cpu"),
    ErrorCase("index-negative", _refused(boxes=_index(-1)), OUTSIDE.format(1, 2), "cpu"),
    ErrorCase("index-nan", _refused(boxes=_index(NAN)), OUTSIDE.format(1, 2), "cpu"),
    ErrorCase("boxes-device", _refused(boxes=torch.zeros(2, 5, device="meta")), r"boxes must be on the same device"),
    ErrorCase("boxes-none", _refused(boxes=None), r"boxes must be a tensor or a list of tensors"),
    ErrorCase("output-size-zero", _refused(output_size=(0, 7)), r"output_size must be positive"),
    ErrorCase("output-size-overflow", _refused(output_size=(2**32, 2**32)), r"output_size must be at most"),
    ErrorCase("output-size-negative", _refused(output_size=-3), r"output_size must be positive"),
    ErrorCase("output-size-type", _refused(output_size=1.5), r"output_size must be an int or a pair of ints"),
    ErrorCase("spatial-scale-zero", _refused(spatial_scale=0.0), r"spatial_scale must be positive and finite"),
    ErrorCase("spatial-scale-nan", _refused(spatial_scale=NAN), r"spatial_scale must be positive and finite"),
    ErrorCase("grad-rank", _refused_backward(grad=torch.zeros(3, 2, 2)), r"grad must be", op=BACKWARD),
    ErrorCase("grad-size", _refused_backward(grad=torch.zeros(1, 4, 2, 2)), r"grad must be", op=BACKWARD),
    ErrorCase("grad-index", _refused_backward(rois=_index(1)[1:]), OUTSIDE.format(0, 1), "cpu", BACKWARD),
    ErrorCase("grad-input-size", _refused_backward(height=-1), r"input size must not be negative", op=BACKWARD),
    ErrorCase("grad-plane", _refused_backward(height=2**31), r"fewer than 2\^31 pixels a map", op=BACKWARD),
    ErrorCase("argmax-type", _refused_backward(argmax=torch.zeros(1, 3, 2, 2)), r"argmax must be int32", op=BACKWARD),
    ErrorCase("argmax-rank", _refused_backward(argmax=torch.zeros(0).int()), r"argmax must be \[1, 3", op=BACKWARD),
    ErrorCase("argmax-size", _refused_backward(argmax=torch.zeros(1, 3, 2, 1).int()), r"argmax must be", op=BACKWARD),
)


def _torchvision(input, boxes, output_size, spatial_scale=1.0):
    import torchvision

    if not isinstance(boxes, torch.Tensor):
        boxes = [b.to(input) for b in boxes]  # torchvision takes no mix of types
    return torchvision.ops.roi_pool(input, boxes, output_size, spatial_scale)


SPECS = (
    OpSpec(
        name="roi_pool",
        function=roi_pool,
        dispatcher_ops=("roi_pool", "roi_pool_backward"),
        cases=tuple(CASES),
        errors=ERRORS,
        data=("input",),
        layouts=("input",),
        differentiable=("input",),
        peer={"torchvision": _torchvision},
    ),
)
