"""Cases of box formats and of clipping."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import torch

from structops.ops import box_convert, clip_boxes
from structops.ops.box_convert import FORMATS
from structops.testing.cases._draw import INF, NAN, CaseList, boxes, tensor
from structops.testing.spec import Arguments, ErrorCase, OpSpec

CONVERT, CLIP = CaseList(), CaseList()
ROWS = ([NAN, 1, 2, 3], [1, INF, -INF, 3], [9, 9, 1, 1], [0, 0, 0, 0], [-1e30, -1e30, 1e30, 1e30], [40, 40, 90, 90])


def _convert(in_fmt: str, out_fmt: str, *size: int) -> Callable[[torch.Generator], Arguments]:
    def make(g: torch.Generator) -> Arguments:
        count = torch.Size(size).numel()
        return {"boxes": boxes(g, count, 64, 48).view(*size, 4), "in_fmt": in_fmt, "out_fmt": out_fmt}

    return make


for _in, _out in product(FORMATS, FORMATS):
    _tags = "quick" if (_in, _out) in (("xyxy", "cxcywh"), ("xywh", "cxcywh")) else ""
    CONVERT.add(f"{_in}-{_out}", _tags, _convert(_in, _out, 7))
    if _in != _out:
        CONVERT.add(f"gradient-{_in}-{_out}", "gradient", _convert(_in, _out, 2))
CONVERT.add("batches", "", _convert("cxcywh", "xywh", 2, 3))
CONVERT.add("one", "", _convert("cxcywh", "xyxy"))
CONVERT.add("no-boxes", "empty quick", _convert("xyxy", "xywh", 0))
CONVERT.add("large", "large", _convert("xyxy", "cxcywh", 20000))
for _in, _out in (("xyxy", "cxcywh"), ("cxcywh", "xywh"), ("xywh", "xyxy")):
    CONVERT.add(
        f"hostile-{_in}-{_out}",
        "hostile",
        lambda g, i=_in, o=_out: {"boxes": tensor(*ROWS), "in_fmt": i, "out_fmt": o},  # type: ignore[misc]
    )


def _clip(size: object, *shape: int) -> Callable[[torch.Generator], Arguments]:
    def make(g: torch.Generator) -> Arguments:
        count = torch.Size(shape).numel()
        return {"boxes": boxes(g, count, 64, 48).view(*shape, 4), "size": size}

    return make


SIZES = torch.tensor([[30, 50], [48, 20]])
CLIP.add("few", "quick", _clip((40, 50), 6))
CLIP.add("sizes-by-image", "quick", _clip(SIZES, 2, 9))
CLIP.add("sizes-of-any-type", "", _clip(SIZES.double() + 0.5, 2, 9))
CLIP.add("batches", "", _clip((40, 50), 2, 5))
CLIP.add("one", "", _clip((40, 50)))
CLIP.add("on-the-edges", "", lambda g: {"boxes": tensor([0, 0, 40, 30], [-1, -1, 41, 31]), "size": (30, 40)})
CLIP.add("gradient", "gradient", _clip((40, 50), 4))
CLIP.add("gradient-sizes-by-image", "gradient", _clip(SIZES, 2, 3))
CLIP.add("no-boxes", "empty quick", _clip((40, 50), 0))
CLIP.add("no-images", "empty", _clip(SIZES[:0], 0, 4))
CLIP.add("hostile", "hostile", lambda g: {"boxes": tensor(*ROWS), "size": (40, 50)})
CLIP.add("hostile-by-image", "hostile", lambda g: {"boxes": tensor(*ROWS).expand(2, -1, -1), "size": SIZES})
CLIP.add("large", "large", _clip((40, 50), 20000))


def _refused(good: Arguments, **changes: object) -> Callable[[], Arguments]:
    return lambda: {**good, **changes}


_CONVERSION: Arguments = {"boxes": torch.zeros(3, 4), "in_fmt": "xyxy", "out_fmt": "xywh"}
_CLIPPING: Arguments = {"boxes": torch.zeros(2, 3, 4), "size": (4, 5)}


def _errors(good: Arguments) -> tuple[ErrorCase, ...]:
    return (
        ErrorCase("width", _refused(good, boxes=torch.zeros(3, 5)), r"boxes must be \[\.\.\., 4\], got \[3, 5\]"),
        ErrorCase("type", _refused(good, boxes=[1, 2, 3, 4]), r"boxes must be .*got list"),
        ErrorCase("integer", _refused(good, boxes=torch.zeros(3, 4).long()), r"boxes must be float16"),
    )


CONVERT_ERRORS = (
    *_errors(_CONVERSION),
    ErrorCase("in-format", _refused(_CONVERSION, in_fmt="xy"), r"in_fmt must be one of xyxy, xywh, cxcywh, got 'xy'"),
    ErrorCase("out-format", _refused(_CONVERSION, out_fmt="xywhr"), r"out_fmt must be one of"),
)
CLIP_ERRORS = (
    *_errors(_CLIPPING),
    ErrorCase("size-length", _refused(_CLIPPING, size=(1, 2, 3)), r"size must be \(height, width\), got 3 numbers"),
    ErrorCase(
        "size-number", _refused(_CLIPPING, size=7), r"size must be \(height, width\), a tensor or pairs, got int"
    ),
    ErrorCase("size-none", _refused(_CLIPPING, size=(None, 7)), r"size must be numbers of 0 or more, got None"),
    ErrorCase("size-nan", _refused(_CLIPPING, size=(NAN, 7)), r"size must be numbers of 0 or more, got nan"),
    ErrorCase("size-shape", _refused(_CLIPPING, size=torch.zeros(3, 2)), r"size must be .*\[2, 2\]"),
    ErrorCase("size-device", _refused(_CLIPPING, size=torch.zeros(2, 2, device="meta")), r"size must be on the same"),
)


def _torchvision_clip(boxes, size):
    import torchvision

    if not isinstance(size, torch.Tensor):
        return torchvision.ops.clip_boxes_to_image(boxes, size)
    pairs = zip(boxes, size.to(boxes.dtype).tolist(), strict=True)
    return torch.stack([torchvision.ops.clip_boxes_to_image(b, tuple(s)) for b, s in pairs])


def _torchvision_convert(boxes, in_fmt, out_fmt):
    import torchvision

    return torchvision.ops.box_convert(boxes, in_fmt, out_fmt)


SPECS = (
    OpSpec(
        name="box_convert",
        function=box_convert,
        dispatcher_ops=(),  # torch's own operations
        cases=tuple(CONVERT),
        errors=CONVERT_ERRORS,
        data=("boxes",),
        differentiable=("boxes",),
        peer={"torchvision": _torchvision_convert},
    ),
    OpSpec(
        name="clip_boxes",
        function=clip_boxes,
        dispatcher_ops=(),  # torch's own operations
        cases=tuple(CLIP),
        errors=CLIP_ERRORS,
        data=("boxes",),
        differentiable=("boxes",),
        peer={"torchvision": _torchvision_clip},
    ),
)
