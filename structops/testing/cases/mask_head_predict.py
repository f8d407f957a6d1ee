"""Cases of the mask head: every RoI asks for a class of its own."""

from __future__ import annotations

import torch

from structops.ops import mask_head_predict
from structops.testing.cases._draw import INF, NAN, CaseList, features
from structops.testing.spec import Arguments, ErrorCase, OpSpec

CASES = CaseList()
WEIGHTS = ("deconv_weight", "deconv_bias", "logits_weight", "logits_bias")


def arguments(g: torch.Generator, rois: int, channels: int, hidden: int, classes: int, size=(3, 4)) -> Arguments:
    def normal(*shape: int, scale: float = 1.0) -> torch.Tensor:
        return scale * torch.randn(*shape, generator=g, dtype=torch.float64)

    return {
        "features": features(g, rois, channels, *size),
        "deconv_weight": normal(channels, hidden, 2, 2, scale=max(channels, 1) ** -0.5),
        "deconv_bias": normal(hidden),
        "logits_weight": normal(classes, hidden, 1, 1, scale=max(hidden, 1) ** -0.5),
        "logits_bias": normal(classes),
        "labels": torch.randint(classes, (rois,), generator=g),
    }


def _add(name: str, tags: str, *shape, **changes) -> None:
    CASES.add(name, tags, lambda g: arguments(g, *shape) | changes)


_add("small", "quick", 2, 3, 4, 5)
_add("no-bias", "quick", 1, 4, 3, 2, deconv_bias=None, logits_bias=None)
_add("one-class", "", 3, 8, 8, 1)
_add("odd", "", 3, 17, 33, 7, (5, 3))
_add("one-pixel", "", 5, 16, 16, 3, (1, 1))
_add("blocks", "", 2, 64, 64, 21, (7, 7))
_add("past-blocks", "", 2, 65, 66, 4, (4, 9))
_add("wide", "", 1, 40, 130, 4, (2, 33))
_add("mask-rcnn", "large", 3, 256, 256, 91, (14, 14))


@CASES.add("matrix", "")  # a linear layer's weight, and narrow labels
def _(g):
    found = arguments(g, 4, 6, 5, 3)
    return found | {"logits_weight": found["logits_weight"][:, :, 0, 0], "labels": found["labels"].to(torch.int32)}


_add("no-rois", "empty quick", 0, 3, 4, 5)
_add("no-channels", "empty", 2, 0, 3, 2)
_add("no-hidden", "empty", 2, 3, 0, 2)
_add("no-pixels", "empty", 2, 3, 4, 2, (0, 5))


@CASES.add("nan", "hostile quick")
def _(g):
    found = arguments(g, 3, 4, 5, 2)
    found["features"][0, 1, 1, 2], found["features"][2, 0, 0, 0] = NAN, INF
    return found


@CASES.add("far", "hostile")  # logits past what exp can hold
def _(g):
    found = arguments(g, 4, 3, 4, 4)
    return found | {
        "logits_bias": torch.tensor([1000.0, -1000.0, INF, -INF], dtype=torch.float64),
        "labels": torch.arange(4),
    }


def _refused(**changes: object):
    def make() -> Arguments:
        return arguments(torch.Generator().manual_seed(0), 2, 3, 4, 5) | changes

    return make


META = torch.zeros(2, dtype=torch.int64, device="meta")
ERRORS = (
    ErrorCase("features-none", _refused(features=None), r"features must be a tensor"),
    ErrorCase("features-rank", _refused(features=torch.zeros(2, 3, 4).double()), r"features must be \[K, C, H, W\]"),
    ErrorCase("features-integer", _refused(features=torch.zeros(2, 3, 4, 4).int()), r"features must be float16"),
    ErrorCase(
        "deconv-kernel", _refused(deconv_weight=torch.zeros(3, 4, 3, 3).double()), r"deconv_weight must be \[3, D, 2"
    ),
    ErrorCase(
        "deconv-channels", _refused(deconv_weight=torch.zeros(4, 4, 2, 2).double()), r"deconv_weight must be \[3"
    ),
    ErrorCase("deconv-rank", _refused(deconv_weight=torch.zeros(3).double()), r"deconv_weight must be \[3"),
    ErrorCase(
        "deconv-type", _refused(deconv_weight=torch.zeros(3, 4, 2, 2).half()), r"deconv_weight must have the type"
    ),
    ErrorCase("deconv-bias", _refused(deconv_bias=torch.zeros(5).double()), r"deconv_bias must be \[4\]"),
    ErrorCase(
        "logits-channels", _refused(logits_weight=torch.zeros(5, 3, 1, 1).double()), r"logits_weight must be \[cl"
    ),
    ErrorCase("logits-kernel", _refused(logits_weight=torch.zeros(5, 4, 3, 3).double()), r"logits_weight must be \[cl"),
    ErrorCase("logits-bias", _refused(logits_bias=torch.zeros(4).double()), r"logits_bias must be \[5\]"),
    ErrorCase("labels-float", _refused(labels=torch.zeros(2)), r"labels must be an integer"),
    ErrorCase("labels-none", _refused(labels=None), r"labels must be a tensor"),
    ErrorCase("labels-count", _refused(labels=torch.zeros(3).long()), r"labels must be \[2\]"),
    ErrorCase("labels-device", _refused(labels=META), r"labels must be on the same device"),
    ErrorCase("labels-past", _refused(labels=torch.tensor([0, 5])), r"labels\[1\] is 5, but must be in", device="cpu"),
    ErrorCase("labels-negative", _refused(labels=torch.tensor([-1, 0])), r"labels\[0\] is -1", device="cpu"),
)


def torch_composed(features, deconv_weight, deconv_bias, logits_weight, logits_bias, labels):
    """The layers as torchvision runs them, for all classes; then each RoI's own."""
    functional = torch.nn.functional
    if logits_weight.dim() == 2:
        logits_weight = logits_weight[:, :, None, None]
    hidden = functional.relu(functional.conv_transpose2d(features, deconv_weight, deconv_bias, stride=2))
    probabilities = functional.conv2d(hidden, logits_weight, logits_bias).sigmoid()
    return probabilities[torch.arange(len(labels)), labels.long()][:, None]


SPECS = (
    OpSpec(
        name="mask_head_predict",
        function=mask_head_predict,
        dispatcher_ops=("mask_head_predict",),
        cases=tuple(CASES),
        errors=ERRORS,
        data=("features", *WEIGHTS),
        layouts=("features", "deconv_weight"),
        lowers=("features", *WEIGHTS),
        scale="outputs",
        peer={"torch": torch_composed},
    ),
)
