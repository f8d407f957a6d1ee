"""Cases of position-sensitive RoI Align; most serve position-sensitive RoI Pool as well."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch

from structops.ops import ps_roi_align
from structops.testing.cases._draw import NAN, CaseList, features, rois, tensor, uniform
from structops.testing.cases.roi_align import HUGE, INVERTED, NON_FINITE, ORDINARY, TINY, Rows
from structops.testing.spec import Arguments, Case, ErrorCase, OpSpec


def arguments(
    g: torch.Generator,
    shape: tuple[int, int, int, int],
    boxes: object,
    pooled: tuple[int, int],
    spatial_scale: float = 1.0,
    **options: object,
) -> Arguments:
    """For a map of ``shape`` (N, classes, H, W): it has ``classes * PH * PW`` channels."""
    n, classes, h, w = shape
    map_ = features(g, n, classes * pooled[0] * pooled[1], h, w)
    return {"input": map_, "boxes": boxes, "output_size": pooled, "spatial_scale": spatial_scale, **options}


def _rows(rows: Rows, g: torch.Generator) -> torch.Tensor:
    return tensor(*rows, ORDINARY)


def common_cases() -> CaseList:
    """What both position-sensitive ops are tried on; further options are each op's defaults."""
    cases = CaseList()

    def add(
        name: str,
        tags: str,
        shape: tuple[int, int, int, int],
        pooled: tuple[int, int],
        boxes: Callable[[torch.Generator], object],
        scale: float = 1.0,
    ) -> None:
        cases.add(name, tags, lambda g: arguments(g, shape, boxes(g), pooled, scale))

    # Typical: R-FCN with a few classes, its box regression (4 numbers for each of two classes), Light-Head R-CNN.
    add("small", "quick", (2, 2, 8, 9), (2, 3), lambda g: rois(g, 6, 2, 9, 8))
    add("rfcn", "", (2, 3, 25, 42), (7, 7), lambda g: rois(g, 24, 2, 650, 390, smallest=32, largest=400), 1 / 16)
    add("rfcn-boxes", "", (1, 8, 25, 42), (3, 3), lambda g: rois(g, 17, 1, 650, 390, smallest=32, largest=400), 1 / 16)
    add("light-head", "", (1, 10, 19, 31), (7, 7), lambda g: rois(g, 9, 1, 480, 290, smallest=16, largest=300), 1 / 16)
    add("list-of-boxes", "quick", (3, 1, 7, 8), (2, 2), lambda g: [rois(g, n, 1, 8, 7)[:, 1:] for n in (2, 0, 3)])
    # More RoIs than a kernel takes at a time, of images in turn.
    add("many-boxes", "", (3, 2, 17, 31), (2, 2), lambda g: rois(g, 1100, 3, 31, 17, smallest=0.1, largest=6))
    add(
        "overlapping-boxes",  # each pixel's gradient is a sum over all of them
        "",
        (1, 3, 18, 25),
        (3, 3),
        lambda g: tensor(0, 4, 3, 20, 14).repeat(40, 1) + uniform(g, -0.5, 0.5, 40, 5) * tensor(0, 1, 1, 1, 1),
    )

    # Odd sizes: tails of vectors, maps narrower than a vector, long windows.
    for classes in (1, 5, 17):
        add(f"classes={classes}", "", (2, classes, 11, 13), (3, 2), lambda g: rois(g, 6, 2, 13, 11))
    for h, w in ((1, 1), (1, 9), (9, 1), (2, 2), (4, 3), (5, 4)):
        tags = "quick" if h == 4 else ""
        add(f"map={h}x{w}", tags, (2, 2, h, w), (2, 3), functools.partial(rois, n=6, images=2, width=w, height=h))
    for pooled in ((1, 1), (1, 4), (5, 3), (14, 14)):
        add(f"pooled={pooled[0]}x{pooled[1]}", "", (1, 2, 15, 19), pooled, lambda g: rois(g, 6, 1, 19, 15))
    add("long-bins", "", (1, 2, 40, 70), (2, 2), lambda g: rois(g, 7, 1, 70, 40, smallest=20, largest=60))
    add("one-box", "quick", (1, 2, 8, 8), (2, 2), lambda g: tensor([0, 1.5, 2, 6.25, 7]))

    # Two forwards an element: few of them, for the sake of interpreters.
    add("gradient", "gradient quick", (1, 1, 4, 5), (2, 1), lambda g: rois(g, 3, 1, 5, 4))
    add("gradient-images", "gradient", (2, 1, 5, 6), (2, 2), lambda g: rois(g, 3, 2, 6, 5))
    add("gradient-scaled", "gradient", (1, 2, 5, 6), (1, 2), lambda g: rois(g, 3, 1, 12, 10, smallest=0.3), 0.5)
    add(
        "gradient-outside",  # partly outside the map, and a box that is not finite
        "gradient hostile",
        (1, 1, 4, 5),
        (2, 2),
        lambda g: tensor([0, -3, -2, 3, 4], [0, 3, 2, 9, 9], [0, NAN, 0, 4, 4]),
    )

    # Where boxes and map meet.
    def starts(g):
        at = torch.arange(-3, 10, 0.5, dtype=torch.float64)
        return torch.stack([0 * at, at, at, at + 2, at + 3], 1)

    add("edges", "", (1, 1, 6, 8), (2, 2), starts)
    outside = ([0, -50, -50, -20, -20], [0, 100, 2, 130, 6], [0, 2, -90, 6, -80], [0, -10, -10, 40, 40])
    add("outside", "", (1, 2, 9, 11), (3, 3), lambda g: tensor(*outside))
    add("whole-map", "", (2, 2, 33, 47), (7, 7), lambda g: tensor([0, 0, 0, 47, 33], [1, 0, 0, 46, 32]))

    @cases.add("untouched-nan")  # pixels with no weight hold NaN, which must not leak into the result
    def _(g):
        case = arguments(g, (2, 2, 16, 18), tensor([0, 5, 4, 12, 9], [0, 6.5, 4.25, 11.75, 8.5]), (3, 4))
        inner = case["input"][:1, :, 3:11, 4:14].clone()
        case["input"].fill_(NAN)[:1, :, 3:11, 4:14] = inner
        return case

    add("no-boxes", "empty quick", (2, 2, 8, 9), (2, 3), lambda g: torch.empty(0, 5, dtype=torch.float64))
    add("no-boxes-list", "empty", (2, 2, 8, 9), (2, 3), lambda g: [torch.empty(0, 4, dtype=torch.float64)] * 2)
    add("no-images", "empty", (0, 2, 8, 9), (2, 3), lambda g: torch.empty(0, 5, dtype=torch.float64))
    add("no-channels", "empty", (2, 0, 8, 9), (2, 3), lambda g: rois(g, 4, 2, 9, 8))
    # Hostile to others: torchvision divides by its number of samples, zero, and gives NaN.
    flat = ([0, 3, 2, 3, 2], [0, 1, 5, 4, 5], [0, 4, 1, 4, 6], [0, 3.3, 2.7, 3.3, 2.7])
    add("zero-area", "hostile", (1, 2, 8, 9), (2, 2), lambda g: tensor(*flat))

    # Hostile: nothing here may crash, hang, or read out of bounds.
    for name, rows in (("non-finite", NON_FINITE), ("inverted", INVERTED), ("huge", HUGE), ("tiny", TINY)):
        tags = "hostile" if name == "tiny" else "hostile quick"
        add(name, tags, (2, 2, 8, 9), (2, 2), functools.partial(_rows, rows))
    add("huge-scale", "hostile", (1, 2, 8, 9), (2, 2), lambda g: rois(g, 5, 1, 9, 8), 1e30)
    add("tiny-scale", "hostile", (1, 2, 8, 9), (2, 2), lambda g: rois(g, 5, 1, 9, 8), 1e-30)

    # 5 x 6 bins: of 7, some of torchvision's are a pixel longer in Pool, see the definition.
    big = lambda g: rois(g, 30, 1, 1600, 960, smallest=16, largest=900)  # noqa: E731
    add("large-map", "large", (1, 2, 120, 200), (5, 6), big, 1 / 8)
    return cases


def error_cases(op: str, options: Arguments) -> tuple[ErrorCase, ...]:
    """What both ops refuse. ``options``: the op's further arguments."""
    backward = f"{op}_backward"
    outside = r"boxes\[{}, 0\] is batch index .*must be in \[0, {}\)"

    def refused(**changes: object):
        def make() -> Arguments:
            good = {"input": torch.zeros(2, 12, 8, 9), "boxes": torch.tensor([[0.0, 1, 1, 5, 5]])}
            return {**good, "output_size": (2, 3), **options, **changes}

        return make

    def refused_backward(**changes: object):
        def make() -> Arguments:
            good = {
                "grad": torch.zeros(1, 3, 2, 2),
                "rois": torch.tensor([[0.0, 1, 1, 5, 5]]),
                "spatial_scale": 1.0,
                "pooled_height": 2,
                "pooled_width": 2,
                "batch_size": 1,
                "channels": 12,
                "height": 8,
                "width": 9,
                **options,
            }
            return {**good, **changes}

        return make

    def index(value: float) -> torch.Tensor:
        return torch.tensor([[0.0, 1, 1, 5, 5], [value, 1, 1, 5, 5]])

    multiple = r"must have a channel for each class and bin, a multiple of {} x {}, got {} channels"
    floats = torch.zeros(2, 5, dtype=torch.int64)
    return (
        ErrorCase("input-rank", refused(input=torch.zeros(12, 8, 9)), r"input must be \[N, C, H, W\]"),
        ErrorCase("input-integer", refused(input=torch.zeros(2, 12, 8, 9).long()), r"input must be float16"),
        ErrorCase("input-channels", refused(input=torch.zeros(2, 10, 8, 9)), "input " + multiple.format(2, 3, 10)),
        ErrorCase("boxes-rank", refused(boxes=torch.zeros(5)), r"boxes must be \[K, 5\]"),
        ErrorCase("boxes-width", refused(boxes=torch.zeros(2, 4)), r"boxes must be \[K, 5\]"),
        ErrorCase("boxes-integer", refused(boxes=floats), r"boxes must be float"),
        ErrorCase("boxes-empty-list", refused(boxes=[]), r"boxes must hold one tensor per image"),
        ErrorCase("boxes-none", refused(boxes=None), r"boxes must be a tensor or a list of tensors"),
        ErrorCase("boxes-device", refused(boxes=floats.float().to("meta")), r"boxes must be on the same device"),
        ErrorCase("index-too-large", refused(boxes=index(2)), outside.format(1, 2), "cpu"),
        ErrorCase("index-negative", refused(boxes=index(-1)), outside.format(1, 2), "cpu"),
        ErrorCase("index-nan", refused(boxes=index(NAN)), outside.format(1, 2), "cpu"),
        ErrorCase("output-size-zero", refused(output_size=(0, 7)), r"output_size must be positive"),
        ErrorCase("output-size-overflow", refused(output_size=(2**32, 2**32)), r"output_size must be at most"),
        ErrorCase("output-size-type", refused(output_size=1.5), r"output_size must be an int or a pair of ints"),
        ErrorCase("spatial-scale-zero", refused(spatial_scale=0.0), r"spatial_scale must be positive and finite"),
        ErrorCase("spatial-scale-nan", refused(spatial_scale=NAN), r"spatial_scale must be positive and finite"),
        ErrorCase("grad-rank", refused_backward(grad=torch.zeros(3, 2, 2)), r"grad must be", op=backward),
        ErrorCase("grad-size", refused_backward(grad=torch.zeros(1, 4, 2, 2)), r"grad must be", op=backward),
        ErrorCase("grad-index", refused_backward(rois=index(1)[1:]), outside.format(0, 1), "cpu", backward),
        ErrorCase("grad-channels", refused_backward(channels=13), multiple.format(2, 2, 13), op=backward),
        ErrorCase("grad-input-size", refused_backward(height=-1), r"input size must not be negative", op=backward),
    )


CASES = common_cases()


def _sampled(case: Case) -> Case:
    """The same with two samples a bin, the usual number; the common cases are adaptive."""
    return Case(f"{case.name}-sampled", lambda g: {**case.make(g), "sampling_ratio": 2}, case.tags)


_SAMPLED_QUICK = ("small", "gradient")
for _case in tuple(CASES):
    _sampled_case = _sampled(_case)
    if _case.name not in _SAMPLED_QUICK:  # few: an interpreter takes seconds a call
        _sampled_case = Case(_sampled_case.name, _sampled_case.make, _sampled_case.tags - {"quick"})
    if "empty" not in _case.tags:
        CASES.append(_sampled_case)

for _ratio in (0, 1, 3, 20):

    @CASES.add(f"sampling={_ratio}")
    def _(g, ratio=_ratio):
        return arguments(g, (2, 2, 24, 31), rois(g, 12, 2, 62, 48, smallest=0.5), (3, 5), 0.5, sampling_ratio=ratio)


ERRORS = (
    *error_cases("ps_roi_align", {"sampling_ratio": 2}),
    ErrorCase(
        "sampling-huge",
        lambda: {
            "input": torch.zeros(1, 4, 3, 3),
            "boxes": torch.zeros(1, 5),
            "output_size": 2,
            "sampling_ratio": 2**40,
        },
        r"sampling_ratio must be at most 65536",
    ),
)


def _torchvision(input, boxes, output_size, spatial_scale=1.0, sampling_ratio=-1):
    import torchvision

    if not isinstance(boxes, torch.Tensor):
        boxes = [b.to(input) for b in boxes]  # torchvision takes no mix of types
    return torchvision.ops.ps_roi_align(input, boxes, output_size, spatial_scale, sampling_ratio)


SPECS = (
    OpSpec(
        name="ps_roi_align",
        function=ps_roi_align,
        dispatcher_ops=("ps_roi_align", "ps_roi_align_backward"),
        cases=tuple(CASES),
        errors=ERRORS,
        data=("input",),
        layouts=("input",),
        differentiable=("input",),
        peer={"torchvision": _torchvision},
    ),
)
