"""Cases of the transposed convolution: kernels, strides and what follows them; each shape also with a gradient."""

from __future__ import annotations

import torch

from structops.ops import conv_transpose2d
from structops.testing.cases._draw import INF, NAN, CaseList, features
from structops.testing.spec import Arguments, ErrorCase, OpSpec

CASES = CaseList()
FUSED = ("bias", "scale", "shift", "residual")


def arguments(
    g: torch.Generator, size: tuple[int, ...], out_channels: int, kernel, fused: str = "", groups: int = 1, **options
) -> Arguments:
    """An input of ``size``, weights that keep its variance about 1, and the tensors named in ``fused``."""
    kernel = (kernel, kernel) if isinstance(kernel, int) else kernel
    x = features(g, *size)
    weight = torch.randn(size[1], out_channels // groups, *kernel, generator=g, dtype=torch.float64)
    found = {
        "input": x,
        "weight": weight / max(size[1] / groups, 1) ** 0.5,
        "groups": groups,
        **dict.fromkeys(FUSED),
        **options,
    }
    for name in fused.split():
        if name != "residual":
            found[name] = 0.5 + torch.rand(out_channels, generator=g, dtype=torch.float64)
    if "residual" in fused.split():
        steps = {k: options[k] for k in ("stride", "padding", "output_padding", "dilation") if k in options}
        meta = {name: found[name].to("meta") for name in ("input", "weight")}
        shape = torch.nn.functional.conv_transpose2d(meta["input"], meta["weight"], groups=groups, **steps).shape
        found["residual"] = features(g, *shape)
    return found


def _add(name: str, tags: str, *shape, **options) -> None:
    CASES.add(name, tags, lambda g: arguments(g, *shape, **options))


# Kernels and strides. The first is what interpreters run in every dtype.

_add("k2s2", "quick", (1, 3, 3, 4), 5, 2, "bias", stride=2, activation="relu")
_add("k3s2", "quick", (2, 4, 4, 3), 3, 3, "bias", stride=2, padding=1, output_padding=1)
_add("k4s2", "", (1, 8, 6, 7), 16, 4, "bias", stride=2, padding=1)
_add("k1s1", "", (2, 7, 5, 3), 9, 1)
_add("k3s1", "", (1, 5, 6, 6), 4, 3, "bias", padding=1)
_add("k3s3p2", "", (1, 6, 5, 4), 6, 3, stride=3, padding=2, output_padding=2)
_add("gaps", "", (1, 3, 4, 5), 4, 2, "bias", stride=4, output_padding=3)  # outputs that no tap reaches
_add("dilated", "quick", (1, 4, 5, 4), 3, (3, 2), "bias", stride=2, dilation=(2, 3), padding=1)
_add("dilated-past-stride", "", (1, 2, 4, 4), 3, 3, stride=2, dilation=4, output_padding=3)
_add("oblong", "", (1, 3, 4, 7), 5, (1, 5), stride=(3, 2), padding=(0, 2), output_padding=(2, 1))
_add("padding-past-kernel", "", (1, 3, 6, 7), 4, 2, stride=2, padding=4)
_add("fcn-k16s8", "", (1, 21, 4, 5), 21, 16, stride=8, padding=4)
_add("one-pixel", "", (3, 16, 1, 1), 8, 4, "bias")

# A segmentation head's last: an output of one channel lies alike in both layouts.
_add("one-output-channel", "", (2, 24, 5, 23), 1, 2, "bias residual", stride=2, activation="sigmoid")

# Groups.

_add("groups", "quick", (1, 6, 4, 3), 4, 3, "bias", groups=2, stride=2)
_add("depthwise-k4s2", "", (2, 19, 5, 6), 19, 4, "bias", groups=19, stride=2, padding=1)
_add("depthwise-k16s8", "", (1, 3, 2, 40), 3, 16, "bias residual", groups=3, stride=8, padding=4, activation="relu")
_add("depthwise-gaps", "", (1, 2, 5, 37), 2, (2, 5), groups=2, stride=(1, 3), dilation=(2, 2))
_add("depthwise-gaps-between-rows", "", (1, 2, 3, 37), 2, (2, 3), groups=2, stride=(4, 1), dilation=(3, 1))
_add("one-output", "", (2, 5, 3, 37), 1, 2, "bias residual", stride=2, activation="sigmoid")
_add("few-outputs", "", (1, 6, 4, 19), 3, (1, 2), "scale", stride=(1, 2), padding=(0, 1))
_add("depthwise-multiplier", "", (1, 5, 4, 4), 15, 3, groups=5, stride=2, padding=1)

# What follows, in every combination that is computed differently.

_add("affine", "quick", (1, 4, 4, 3), 6, 2, "bias scale shift", stride=2)
_add("batch-norm-relu-skip", "quick", (1, 5, 3, 4), 7, 2, "scale shift residual", stride=2, activation="relu")
_add(
    "relu-then-skip",
    "",
    (1, 5, 3, 4),
    7,
    2,
    "scale shift residual",
    stride=2,
    activation="relu",
    residual_after_activation=True,
)
for _activation in ("leaky_relu", "gelu", "silu", "sigmoid"):
    _add(_activation, "", (2, 6, 4, 5), 8, 4, "bias scale residual", stride=2, padding=1, activation=_activation)
_add("shift-alone", "", (1, 4, 3, 3), 3, 3, "shift", activation="leaky_relu", negative_slope=-0.5)

# Sizes about the blocks of the kernels: channels and pixels that fill none, and that fill several.

for _in, _out in ((17, 33), (64, 48), (130, 65)):
    _add(f"channels-{_in}-{_out}", "", (1, _in, 5, 7), _out, 2, "bias", stride=2)
_add("columns-odd", "", (2, 33, 3, 37), 24, 3, "bias scale shift", stride=2, padding=1, activation="relu")
_add("mask-head", "large", (9, 256, 14, 14), 256, 2, "bias", stride=2, activation="relu")
_add("wide-maps", "large", (1, 40, 50, 61), 30, 4, "bias residual", stride=2, padding=1, activation="relu")
_add("many-channels", "large", (2, 1030, 4, 3), 72, 2, stride=2)

# Small enough for numerical derivatives.

_add("gradient", "gradient", (1, 2, 2, 2), 2, 3, "bias", stride=2, padding=1, output_padding=1)
_add("gradient-groups", "gradient", (1, 2, 2, 1), 2, 2, groups=2, dilation=2)
_add("gradient-gelu", "gradient", (1, 1, 2, 1), 2, 2, "bias scale shift residual", stride=2, activation="gelu")
_add(
    "gradient-silu-skip",
    "gradient",
    (1, 2, 1, 1),
    1,
    2,
    "scale residual",
    stride=2,
    activation="silu",
    residual_after_activation=True,
)

# Empty.

_add("no-images", "empty quick", (0, 3, 4, 4), 5, 2, "bias residual", stride=2)
_add("no-inputs", "empty", (1, 0, 2, 3), 4, 2, "bias", stride=2, activation="relu")  # the bias alone
_add("no-outputs", "empty", (1, 3, 2, 2), 0, 2, stride=2)

# Hostile: numbers that are none reach exactly the outputs that their pixel reaches.


@CASES.add("nan", "hostile quick")
def _(g):
    found = arguments(g, (1, 3, 4, 4), 4, 3, "bias scale shift", stride=2, padding=1, activation="relu")
    found["input"][0, 1, 2, 1], found["input"][0, 0, 0, 0] = NAN, INF
    return found


@CASES.add("nan-weight", "hostile")
def _(g):
    found = arguments(g, (1, 3, 5, 4), 6, 2, "bias", stride=2)
    found["weight"][1, 2, 0, 1], found["bias"][4] = NAN, -INF
    return found


@CASES.add("infinite-relu", "hostile")
def _(g):
    found = arguments(g, (1, 2, 3, 3), 3, 2, "bias", stride=2, activation="leaky_relu")
    found["bias"][0], found["bias"][1] = INF, -INF
    return found


# Arguments that must be refused.


def _refused(**changes: object):
    def make() -> Arguments:
        return {"input": torch.zeros(1, 4, 3, 3), "weight": torch.zeros(4, 2, 2, 2), "stride": 2, **changes}

    return make


def _op(op: str, **changes: object):
    first = (
        {"grad": torch.zeros(1, 2, 6, 6), "weight": torch.zeros(4, 2, 2, 2), "height": 3, "width": 3}
        if op == GRAD_INPUT
        else {
            "input": torch.zeros(1, 4, 3, 3),
            "grad": torch.zeros(1, 2, 6, 6),
            "kernel_height": 2,
            "kernel_width": 2,
        }
    )
    return lambda: {**first, "stride": [2, 2], "padding": [0, 0], "groups": 1, "dilation": [1, 1], **changes}


GRAD_INPUT, GRAD_WEIGHT = "conv_transpose2d_grad_input", "conv_transpose2d_grad_weight"
META = torch.zeros(4, 2, 2, 2, device="meta")
ERRORS = (
    ErrorCase("input-rank", _refused(input=torch.zeros(4, 3)), r"input must be \[N, C, H, W\]"),
    ErrorCase("input-integer", _refused(input=torch.zeros(1, 4, 3, 3).int()), r"input must be float16"),
    ErrorCase("input-none", _refused(input=None), r"input must be a tensor"),
    ErrorCase("input-no-pixels", _refused(input=torch.zeros(1, 4, 0, 3)), r"input must be at least 1 x 1"),
    ErrorCase("weight-none", _refused(weight=None), r"weight must be a tensor"),
    ErrorCase("weight-rank", _refused(weight=torch.zeros(4, 2, 2)), r"weight must be \[N, C, H, W\]"),
    ErrorCase("weight-type", _refused(weight=torch.zeros(4, 2, 2, 2).double()), r"weight must have the type of input"),
    ErrorCase("weight-device", _refused(weight=META), r"weight must be on the same device as input"),
    ErrorCase("weight-channels", _refused(weight=torch.zeros(3, 2, 2, 2)), r"weight must be \[4 input channels"),
    ErrorCase("weight-kernel", _refused(weight=torch.zeros(4, 2, 0, 2)), r"weight must have a kernel"),
    ErrorCase("groups", _refused(groups=3), r"groups must divide the 4 input channels"),
    ErrorCase("groups-zero", _refused(groups=0), r"groups must be from 1"),
    ErrorCase("stride-zero", _refused(stride=(1, 0)), r"stride must be from 1"),
    ErrorCase("stride-three", _refused(stride=(1, 1, 1)), r"stride must be a whole number or 2"),
    ErrorCase("stride-fraction", _refused(stride=2.0), r"stride must be a whole number or 2"),
    ErrorCase("padding-word", _refused(padding="same"), r"padding must be a whole number or 2"),
    ErrorCase("stride-none", _refused(stride=None), r"stride must be a whole number or 2 of them, got None"),
    ErrorCase("padding-fraction", _refused(padding=(1, 1.5)), r"padding must be a whole number or 2"),
    ErrorCase("dilation-text", _refused(dilation="1"), r"dilation must be a whole number or 2"),
    ErrorCase("stride-huge", _refused(stride=2**40), r"stride must be from 1 to"),
    ErrorCase("padding-negative", _refused(padding=-1), r"padding must be from 0"),
    ErrorCase("padding-all", _refused(padding=3), r"padding must leave at least one"),
    ErrorCase("dilation-zero", _refused(dilation=0), r"dilation must be from 1"),
    ErrorCase("output-padding", _refused(output_padding=2), r"output_padding must be smaller than stride"),
    ErrorCase("output-padding-negative", _refused(output_padding=-1), r"output_padding must be from 0"),
    ErrorCase("bias-size", _refused(bias=torch.zeros(4)), r"bias must be \[2\]"),
    ErrorCase("bias-number", _refused(bias=1.0), r"bias must be a tensor or None, got 1.0"),
    ErrorCase("groups-huge", _refused(groups=2**62), r"groups must be from 1 to"),
    ErrorCase("groups-text", _refused(groups="2"), r"groups must be a whole number of 64 bits, got '2'"),
    ErrorCase("groups-enormous", _refused(groups=2**63), r"groups must be a whole number of 64 bits"),
    ErrorCase("bias-integer", _refused(bias=torch.zeros(2).int()), r"bias must be float16"),
    ErrorCase("scale-rank", _refused(scale=torch.zeros(2, 1)), r"scale must be \[2\]"),
    ErrorCase("shift-device", _refused(shift=torch.zeros(2, device="meta")), r"shift must be on the same device"),
    ErrorCase("residual-shape", _refused(residual=torch.zeros(1, 2, 5, 6)), r"residual must have the shape of the out"),
    ErrorCase("residual-list", _refused(residual=[0.0]), r"residual must be a tensor"),
    ErrorCase("residual-type", _refused(residual=torch.zeros(1, 2, 6, 6).half()), r"residual must have the type of in"),
    ErrorCase("residual-number", _refused(residual=1), r"residual must be a tensor, got int"),
    ErrorCase("slope-nan", _refused(negative_slope=NAN), r"negative_slope must be a number, got NaN"),
    ErrorCase("slope-infinite", _refused(negative_slope=-INF), r"negative_slope must be finite"),
    ErrorCase("slope-none", _refused(negative_slope=None), r"negative_slope must be a number, got NoneType"),
    ErrorCase("activation", _refused(activation="tanh"), r"activation must be one of none, relu"),
    ErrorCase("grad-channels", _op(GRAD_INPUT, grad=torch.zeros(1, 3, 6, 6)), r"grad must have 2 chan", op=GRAD_INPUT),
    ErrorCase("grad-huge", _op(GRAD_INPUT, height=2**62), r"must not be longer than", op=GRAD_INPUT),
    ErrorCase("grad-size", _op(GRAD_INPUT, height=2), r"grad must have the size of the output", op=GRAD_INPUT),
    ErrorCase(
        "grad-weight-type", _op(GRAD_INPUT, weight=torch.zeros(4, 2, 2, 2).half()), r"weight must", op=GRAD_INPUT
    ),
    ErrorCase(
        "grad-batch", _op(GRAD_WEIGHT, grad=torch.zeros(2, 2, 6, 6)), r"grad must have the batch", op=GRAD_WEIGHT
    ),
    ErrorCase("grad-kernel", _op(GRAD_WEIGHT, kernel_width=0), r"kernel must be at least", op=GRAD_WEIGHT),
    ErrorCase("grad-larger", _op(GRAD_WEIGHT, kernel_width=5), r"grad must have the size", op=GRAD_WEIGHT),
    ErrorCase("grad-groups", _op(GRAD_WEIGHT, groups=4), r"groups must divide the channels", op=GRAD_WEIGHT),
)


def torch_composed(input, weight, bias=None, *, scale=None, shift=None, activation="none", residual=None, **options):
    """torch's transposed convolution, and torch's own operations after it."""
    slope, after = options.pop("negative_slope", 0.01), options.pop("residual_after_activation", False)
    functional = torch.nn.functional
    out = functional.conv_transpose2d(input, weight, bias, **options)
    out = out if scale is None else out * scale[:, None, None]
    out = out if shift is None else out + shift[:, None, None]
    if residual is not None and not after:
        out = out + residual
    if activation == "leaky_relu":
        out = functional.leaky_relu(out, slope)
    elif activation != "none":
        out = getattr(torch if activation == "sigmoid" else functional, activation)(out)
    return out + residual if residual is not None and after else out


SPECS = (
    OpSpec(
        name="conv_transpose2d",
        function=conv_transpose2d,
        dispatcher_ops=("conv_transpose2d", GRAD_INPUT, GRAD_WEIGHT),
        cases=tuple(CASES),
        errors=ERRORS,
        data=("input", "weight", *FUSED),
        layouts=("input", "weight", "residual"),
        differentiable=("input", "weight", *FUSED),
        scale="outputs",
        lowers=("input", "weight", "residual"),
        peer={"torch": torch_composed},
    ),
)
