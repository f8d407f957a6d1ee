"""Cases of RoI Align over a feature pyramid."""

from __future__ import annotations

import torch

from structops.ops import multiscale_roi_align
from structops.testing.cases._draw import INF, NAN, CaseList, boxes, features, rois, tensor, uniform
from structops.testing.cases.roi_align import HUGE, INVERTED, NON_FINITE, TINY
from structops.testing.spec import Arguments, ErrorCase, OpSpec

CASES = CaseList()
CANONICAL = {"canonical_scale": 8, "canonical_level": 1}  # for images of some 32 pixels


def pyramid(g: torch.Generator, n: int, c: int, *sizes: tuple[int, int]) -> list[torch.Tensor]:
    return [features(g, n, c, h, w) for h, w in sizes]


def arguments(maps: list[torch.Tensor], boxes: object, output_size: object, scales: object, **options) -> Arguments:
    return {"features": maps, "boxes": boxes, "output_size": output_size, "scales": scales, **options}


# Typical: a detector's box head, its mask head, padded proposals.

FPN = (1 / 4, 1 / 8, 1 / 16, 1 / 32)


@CASES.add("box-head")
def _(g):
    maps = pyramid(g, 2, 32, (64, 80), (32, 40), (16, 20), (8, 10))
    return arguments(maps, rois(g, 40, 2, 320, 256, smallest=16, largest=320), (7, 7), FPN)


@CASES.add("mask-head")
def _(g):
    maps = pyramid(g, 1, 24, (52, 60), (26, 30), (13, 15), (7, 8))
    return arguments(maps, rois(g, 12, 1, 240, 208, smallest=16, largest=300), 14, FPN, aligned=True)


@CASES.add("list-of-boxes", "quick")
def _(g):
    per_image = [boxes(g, n, 18, 16, smallest=2, largest=24) for n in (3, 0, 2)]
    return arguments(pyramid(g, 3, 3, (16, 18), (8, 9)), per_image, (2, 3), (1.0, 0.5), **CANONICAL)


@CASES.add("three-levels", "quick")
def _(g):
    maps = pyramid(g, 2, 5, (16, 18), (8, 9), (4, 5))
    found = rois(g, 6, 2, 18, 16, smallest=2, largest=24)
    return arguments(maps, found, (2, 3), (1.0, 0.5, 0.25), aligned=True, **CANONICAL)


def _padded(**options):
    def make(g):
        maps = pyramid(g, 2, 3, (16, 18), (8, 9))
        padded = torch.stack([boxes(g, 4, 18, 16, smallest=2, largest=24) for _ in range(2)])
        return arguments(maps, padded, (2, 3), (1.0, 0.5), **CANONICAL, **options)

    return make


CASES.add("padded", "", _padded())
CASES.add("padded-valid", "quick", _padded(valid=torch.tensor([3, 1])))
CASES.add("padded-valid-int32", "", _padded(valid=torch.tensor([0, 4], dtype=torch.int32)))
CASES.add("padded-levels", "", _padded(levels=torch.tensor([[0, 1, 1, 0], [1, 1, 0, 0]]), valid=torch.tensor([4, 2])))


@CASES.add("padding-is-nan", "hostile quick")  # what is past the count is not looked at
def _(g):
    padded = torch.stack([boxes(g, 3, 18, 16, smallest=2, largest=24) for _ in range(2)])
    padded[0, 1:] = NAN
    options = {**CANONICAL, "valid": torch.tensor([1, 3])}
    return arguments(pyramid(g, 2, 3, (16, 18), (8, 9)), padded, (2, 2), (1.0, 0.5), **options)


@CASES.add("levels-given", "quick")
def _(g):
    maps = pyramid(g, 1, 4, (5, 6), (9, 11))  # in any order
    levels = torch.tensor([1, 0, 1, 1])
    return arguments(maps, rois(g, 4, 1, 11, 9), (2, 2), (0.5, 1.0), levels=levels)


@CASES.add("levels-int8")
def _(g):
    maps = pyramid(g, 2, 3, (16, 18), (8, 9), (4, 5))
    levels = torch.randint(3, (20,), generator=g).to(torch.int8)
    return arguments(maps, rois(g, 20, 2, 18, 16), 3, (1.0, 0.5, 0.25), levels=levels)


@CASES.add("one-level")
def _(g):
    return arguments(pyramid(g, 2, 6, (12, 15)), rois(g, 9, 2, 60, 48), (3, 2), (0.25,))


@CASES.add("eight-levels")
def _(g):
    maps = pyramid(g, 2, 5, *((128 >> i, (136 >> i) + 1) for i in range(8)))
    found = rois(g, 60, 2, 136, 128, smallest=0.5)
    found[:, 3:] = found[:, 1:3] + torch.exp2(uniform(g, -1, 9, 60, 2))
    return arguments(maps, found, (2, 2), tuple(2.0**-i for i in range(8)), canonical_scale=8, canonical_level=3)


@CASES.add("level-skipped")  # between the maps there is a level without one, and a box past the last gives zeros
def _(g):
    maps = pyramid(g, 1, 4, (16, 16), (4, 4))
    sides = tensor(3, 7, 9, 15, 17, 30)
    square = torch.stack([0 * sides, 0 * sides, 0 * sides, sides, sides], 1)
    return arguments(maps, square, (2, 2), (1.0, 0.25), **CANONICAL)


@CASES.add("odd-scales")  # as many as the maps are long, not powers of two
def _(g):
    maps = pyramid(g, 1, 4, (15, 17), (8, 9), (4, 5))
    return arguments(maps, rois(g, 16, 1, 34, 30, smallest=1, largest=40), (2, 2), (15 / 31, 8 / 31, 4 / 31),
                     canonical_scale=16, canonical_level=2)  # fmt: skip


@CASES.add("canonical-sides")  # exactly where one level ends, and just below it
def _(g):
    sides = tensor(*(float(s * f) for s in (56, 112, 224, 448, 896) for f in (1, 1 - 1e-5, 1 + 1e-5)))
    square = torch.stack([0 * sides, 0 * sides + 1, 0 * sides + 2, sides + 1, sides + 2], 1)
    return arguments(pyramid(g, 1, 3, (40, 44), (20, 22), (10, 11), (5, 6)), square, (2, 2), FPN)


def _sampling(ratio: int, aligned: bool):
    def make(g):
        maps = pyramid(g, 2, 9, (24, 31), (12, 16))
        found = rois(g, 12, 2, 31, 24, smallest=0.5, largest=30)
        return arguments(maps, found, (3, 5), (1.0, 0.5), sampling_ratio=ratio, aligned=aligned, **CANONICAL)

    return make


for _ratio in (-1, 1, 3):
    for _aligned in (False, True):
        _tags = "quick" if (_ratio, _aligned) == (-1, True) else ""
        CASES.add(f"sampling={_ratio}-{'aligned' if _aligned else 'unaligned'}", _tags, _sampling(_ratio, _aligned))


def _channels(c: int):
    def make(g):
        maps = pyramid(g, 1, c, (11, 13), (6, 7))
        return arguments(maps, rois(g, 7, 1, 13, 11, smallest=1, largest=16), (7, 7), (1.0, 0.5), **CANONICAL)

    return make


for _c in (1, 8, 17, 257):
    CASES.add(f"channels={_c}", "", _channels(_c))


@CASES.add("overlapping-boxes")
def _(g):
    found = tensor(0, 4, 3, 12, 10).repeat(40, 1) + uniform(g, -2, 2, 40, 5) * tensor(0, 1, 1, 1, 1)
    return arguments(pyramid(g, 1, 5, (18, 25), (9, 13)), found, (7, 7), (1.0, 0.5), **CANONICAL)


# RoI Pool inside.


@CASES.add("max")
def _(g):
    maps = pyramid(g, 2, 5, (16, 18), (8, 9), (4, 5))
    found = rois(g, 12, 2, 18, 16, smallest=2, largest=24)
    return arguments(maps, found, (2, 3), (1.0, 0.5, 0.25), mode="max", **CANONICAL)


CASES.add("max-padded-valid", "", _padded(valid=torch.tensor([3, 1]), mode="max"))
CASES.add("max-levels", "", _padded(levels=torch.tensor([[0, 1, 1, 0], [1, 1, 0, 0]]), mode="max"))


@CASES.add("max-hostile", "hostile")
def _(g):
    found = tensor(*NON_FINITE, [1, 1.5, 2, 5.25, 6])
    return arguments(pyramid(g, 2, 5, (8, 9), (4, 5)), found, (3, 2), (1.0, 0.5), mode="max", **CANONICAL)


@CASES.add("max-no-boxes", "empty")
def _(g):
    none = torch.empty(0, 5, dtype=torch.float64)
    return arguments(pyramid(g, 2, 3, (8, 9), (4, 5)), none, (7, 7), (1.0, 0.5), mode="max")


# Small enough for numerical derivatives.


@CASES.add("gradient", "gradient quick")
def _(g):
    maps = pyramid(g, 2, 2, (5, 6), (3, 3))
    return arguments(maps, rois(g, 4, 2, 6, 5, smallest=1, largest=6), (2, 2), (1.0, 0.5),
                     canonical_scale=3, canonical_level=1)  # fmt: skip


@CASES.add("gradient-hostile", "gradient hostile")
def _(g):
    found = tensor([0, -3, -2, 3, 4], [0, 3, 2, 9, 9], [0, NAN, 0, 4, 4], [0, 1, 1, 2, 2])
    return arguments(pyramid(g, 1, 2, (4, 5), (2, 3)), found, (2, 2), (1.0, 0.5), sampling_ratio=1,
                     levels=torch.tensor([0, 1, 1, 0]))  # fmt: skip


# Empty.


@CASES.add("no-boxes", "empty quick")
def _(g):
    return arguments(pyramid(g, 2, 3, (8, 9), (4, 5)), torch.empty(0, 5, dtype=torch.float64), (7, 7), (1.0, 0.5))


@CASES.add("no-boxes-padded", "empty")
def _(g):
    none = torch.empty(2, 0, 4, dtype=torch.float64)
    options = {"valid": torch.tensor([0, 0])}
    return arguments(pyramid(g, 2, 3, (8, 9), (4, 5)), none, (7, 7), (1.0, 0.5), **options)


@CASES.add("no-images", "empty")
def _(g):
    return arguments(pyramid(g, 0, 3, (8, 9), (4, 5)), torch.empty(0, 5, dtype=torch.float64), (7, 7), (1.0, 0.5))


@CASES.add("no-channels", "empty")
def _(g):
    return arguments(pyramid(g, 2, 0, (8, 9), (4, 5)), rois(g, 4, 2, 9, 8), (7, 7), (1.0, 0.5))


@CASES.add("zero-area")
def _(g):
    found = tensor([0, 3, 2, 3, 2], [0, 1, 5, 4, 5], [0, 4, 1, 4, 6], [0, 3.3, 2.7, 3.3, 2.7])
    return arguments(pyramid(g, 1, 3, (8, 9), (4, 5)), found, (2, 2), (1.0, 0.5), sampling_ratio=-1, aligned=True)


# Hostile.


def _hostile(rows, ratio: int, aligned: bool):
    def make(g):
        found = tensor(*rows, [1, 1.5, 2, 5.25, 6])
        maps = pyramid(g, 2, 5, (8, 9), (4, 5))
        return arguments(maps, found, (3, 2), (1.0, 0.5), sampling_ratio=ratio, aligned=aligned, **CANONICAL)

    return make


for _name, _rows in (("non-finite", NON_FINITE), ("inverted", INVERTED), ("huge", HUGE), ("tiny", TINY)):
    for _aligned, _ratio in ((False, 2), (True, -1)):
        _label = f"{_name}-{'aligned' if _aligned else 'unaligned'}-{'adaptive' if _ratio < 0 else 'sampled'}"
        CASES.add(_label, "hostile quick" if _name == "non-finite" and _aligned else "hostile",
                  _hostile(_rows, _ratio, _aligned))  # fmt: skip


# Large.


@CASES.add("large-pyramid", "large")
def _(g):
    maps = pyramid(g, 1, 16, (200, 304), (100, 152), (50, 76), (25, 38))
    return arguments(maps, rois(g, 48, 1, 4 * 304, 4 * 200, smallest=16, largest=900), (7, 7), FPN)


# Arguments that must be refused.


def _refused(**changes: object):
    def make() -> Arguments:
        maps = [torch.zeros(2, 3, 8, 9), torch.zeros(2, 3, 4, 5)]
        good = arguments(maps, torch.tensor([[0.0, 1, 1, 5, 5]]), (7, 7), [1.0, 0.5])
        return {**good, **changes}

    return make


def _refused_backward(**changes: object):
    def make() -> Arguments:
        good = {
            "grad": torch.zeros(1, 3, 2, 2),
            "rois": torch.tensor([[0.0, 1, 1, 5, 5]]),
            "scales": [1.0, 0.5],
            "pooled_height": 2,
            "pooled_width": 2,
            "batch_size": 1,
            "channels": 3,
            "sizes": [8, 9, 4, 5],
            "sampling_ratio": 2,
            "aligned": False,
            "canonical_scale": 224.0,
            "canonical_level": 4,
            "levels": None,
            "valid": None,
        }
        return {**good, **changes}

    return make


def _maps(*shapes: tuple[int, ...], dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    return [torch.zeros(shape, dtype=dtype) for shape in shapes]


FIRST, SECOND = (2, 3, 8, 9), (2, 3, 4, 5)
PADDED = torch.zeros(2, 3, 4)
BACKWARD = "multiscale_roi_align_backward"

ERRORS = (
    ErrorCase("features-tensor", _refused(features=torch.zeros(FIRST)), r"features must be a list of tensors"),
    ErrorCase("levels-list", _refused(levels=[0, 1]), r"levels must be a tensor, got list"),
    ErrorCase("valid-list", _refused(valid=[1, 2]), r"valid must be a tensor, got list"),
    ErrorCase("features-none", _refused(features=[]), r"features must be 1 to 8 maps"),
    ErrorCase("features-nine", _refused(features=_maps(*[SECOND] * 9), scales=[1.0] * 9), r"1 to 8 maps, got 9"),
    ErrorCase("features-rank", _refused(features=_maps((3, 8, 9), SECOND)), r"features\[0\] must be \[N, C, H, W\]"),
    ErrorCase("features-rank-1", _refused(features=_maps(FIRST, (3, 4, 5))), r"features\[1\] must be \[N, C, H, W\]"),
    ErrorCase("features-images", _refused(features=_maps(FIRST, (1, 3, 4, 5))), r"features\[1\] must be .*the N and C"),
    ErrorCase("features-channels", _refused(features=_maps(FIRST, (2, 4, 4, 5))), r"features\[1\] must be .*N and C"),
    ErrorCase(
        "features-dtype",
        _refused(features=[*_maps(FIRST), *_maps(SECOND, dtype=torch.float64)]),
        r"features\[1\] must have the dtype",
    ),
    ErrorCase(
        "features-integer",
        _refused(features=_maps(FIRST, SECOND, dtype=torch.int64)),
        r"features\[0\] must be float16, bfloat16, float32 or float64",
    ),
    ErrorCase("boxes-width", _refused(boxes=torch.zeros(2, 4)), r"boxes must be \[K, 5\]"),
    ErrorCase("boxes-integer", _refused(boxes=torch.zeros(2, 5, dtype=torch.int64)), r"boxes must be float"),
    ErrorCase("boxes-padded-width", _refused(boxes=torch.zeros(2, 3, 5)), r"padded boxes must be \[B, R, 4\]"),
    ErrorCase("boxes-list-width", _refused(boxes=[torch.zeros(1, 5)]), r"boxes\[0\] must be \[L, 4\]"),
    ErrorCase("index-too-large", _refused(boxes=torch.tensor([[2.0, 1, 1, 5, 5]])), r"batch index 2", "cpu"),
    ErrorCase("output-size-zero", _refused(output_size=(0, 7)), r"output_size must be positive"),
    ErrorCase("output-size-overflow", _refused(output_size=(2**32, 2**32)), r"output_size must be at most"),
    ErrorCase("scales-few", _refused(scales=[1.0]), r"scales must be one number for each map, got 1 for 2"),
    ErrorCase("scales-zero", _refused(scales=[1.0, 0.0]), r"scales\[1\] must be positive and finite"),
    ErrorCase("scales-nan", _refused(scales=[NAN, 0.5]), r"scales\[0\] must be positive and finite"),
    ErrorCase("scales-rising", _refused(scales=[0.5, 1.0]), r"scales must go from the finest map to the coarsest"),
    ErrorCase("canonical-scale", _refused(canonical_scale=0), r"canonical_scale must be positive and finite"),
    ErrorCase("canonical-scale-inf", _refused(canonical_scale=INF), r"canonical_scale must be positive and finite"),
    ErrorCase("sampling-huge", _refused(sampling_ratio=2**40), r"sampling_ratio must be at most 65536"),
    ErrorCase("levels-length", _refused(levels=torch.tensor([0, 1])), r"levels must be \[K\]"),
    ErrorCase("levels-float", _refused(levels=torch.tensor([0.0])), r"levels must be an integer tensor"),
    ErrorCase("levels-large", _refused(levels=torch.tensor([2])), r"levels\[0\] is 2, but must be in \[0, 2\)", "cpu"),
    ErrorCase("levels-negative", _refused(levels=torch.tensor([-1])), r"levels\[0\] is -1", "cpu"),
    ErrorCase("valid-unpadded", _refused(valid=torch.tensor([1])), r"valid goes with padded boxes"),
    ErrorCase("valid-float", _refused(boxes=PADDED, valid=torch.ones(2)), r"valid must be an integer tensor"),
    ErrorCase("valid-rank", _refused(boxes=PADDED, valid=torch.ones(2, 3).int()), r"valid must be \[B\]"),
    ErrorCase("valid-length", _refused(boxes=PADDED, valid=torch.ones(4).int()), r"valid must hold one count"),
    ErrorCase(
        "valid-large",
        _refused(boxes=PADDED, valid=torch.tensor([3, 4])),
        r"valid\[1\] is 4, but must be in \[0, 3\]",
        "cpu",
        elsewhere="clamped",
    ),
    ErrorCase(
        "valid-negative",
        _refused(boxes=PADDED, valid=torch.tensor([-1, 3])),
        r"valid\[0\] is -1",
        "cpu",
        elsewhere="clamped",
    ),
    ErrorCase("grad-rank", _refused_backward(grad=torch.zeros(3, 2, 2)), r"grad must be", op=BACKWARD),
    ErrorCase("grad-size", _refused_backward(grad=torch.zeros(1, 4, 2, 2)), r"grad must be", op=BACKWARD),
    ErrorCase("grad-sizes", _refused_backward(sizes=[8, 9, 4]), r"sizes must be a height and a width", op=BACKWARD),
    ErrorCase("grad-negative", _refused_backward(sizes=[8, 9, 4, -1]), r"must not be negative", op=BACKWARD),
)


def _torchvision(
    features,
    boxes,
    output_size,
    scales,
    sampling_ratio=2,
    aligned=False,
    canonical_scale=224,
    canonical_level=4,
    levels=None,
    *,
    valid=None,
    mode="align",
):
    """torchvision's pooler; its roi_align or roi_pool level by level for what that does not take."""
    from torchvision.ops import poolers, roi_align, roi_pool

    pair = (output_size, output_size) if isinstance(output_size, int) else tuple(output_size)
    images = range(len(features[0]))
    if isinstance(boxes, torch.Tensor) and boxes.dim() == 3:
        index = torch.arange(len(boxes)).repeat_interleave(boxes.shape[1])
        boxes = torch.cat([index[:, None].to(boxes), boxes.flatten(0, 1)], 1)
    if isinstance(boxes, torch.Tensor):  # image by image, and back
        order = boxes[:, 0].sort(stable=True).indices
        per_image = [boxes[order][boxes[order, 0] == i, 1:] for i in images]
    else:
        per_image = list(boxes)
        order = torch.arange(sum(map(len, per_image)))
    per_image = [b.to(features[0]) for b in per_image]
    finest, coarsest = (int(-torch.log2(torch.tensor(s, dtype=torch.float32)).item()) for s in (scales[0], scales[-1]))
    mapper = poolers.LevelMapper(finest, coarsest, canonical_scale, canonical_level)
    if levels is None and not aligned and mode == "align":
        found = poolers._multiscale_roi_align(features, per_image, pair, sampling_ratio, list(scales), mapper)
    else:
        place = mapper(per_image) if levels is None else levels.flatten()[order]
        sorted_rois = poolers._convert_to_roi_format(per_image)
        found = features[0].new_zeros(len(place), features[0].shape[1], *pair)
        for level, (map_, scale) in enumerate(zip(features, scales, strict=True)):
            here = (place == level).nonzero()[:, 0]
            if mode == "max":
                crops = roi_pool(map_, sorted_rois[here], pair, scale)
            else:
                crops = roi_align(map_, sorted_rois[here], pair, scale, sampling_ratio, aligned)
            found = found.index_copy(0, here, crops)
    result = torch.empty_like(found).index_copy(0, order, found)
    if valid is None:
        return result
    row = torch.arange(len(result)).view(len(valid), -1)
    padding = (row - row[:, :1] >= valid[:, None]).flatten()
    return result.masked_fill(padding[:, None, None, None], 0)


SPECS = (
    OpSpec(
        name="multiscale_roi_align",
        function=multiscale_roi_align,
        dispatcher_ops=("multiscale_roi_align", "multiscale_roi_align_backward"),
        cases=tuple(CASES),
        errors=ERRORS,
        data=("features",),
        layouts=("features",),
        differentiable=("features",),
        peer={"torchvision": _torchvision},
    ),
)
