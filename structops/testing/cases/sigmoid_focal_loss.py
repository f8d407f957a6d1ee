"""Cases of the sigmoid focal loss: dense targets, soft ones, and classes in their place."""

from __future__ import annotations

import torch

from structops.ops import sigmoid_focal_loss
from structops.testing.cases._draw import INF, NAN, CaseList
from structops.testing.spec import Arguments, ErrorCase, OpSpec

CASES = CaseList()


def arguments(inputs: torch.Tensor, targets: torch.Tensor, **options: object) -> Arguments:
    return {"inputs": inputs, "targets": targets, **options}


def logits(g: torch.Generator, *size: int, spread: float = 3.0) -> torch.Tensor:
    return spread * torch.randn(*size, generator=g, dtype=torch.float64)


def hard(g: torch.Generator, *size: int) -> torch.Tensor:
    """Positives and negatives, one in four positive."""
    return (torch.rand(*size, generator=g) < 0.25).double()


def soft(g: torch.Generator, *size: int) -> torch.Tensor:
    return torch.rand(*size, generator=g, dtype=torch.float64)


def classes(g: torch.Generator, rows: int, columns: int, dtype: torch.dtype = torch.int64) -> torch.Tensor:
    """``[rows]``: a third of a class, a third background (-1 or past the last), the rest ignored."""
    found = torch.randint(columns, (rows,), generator=g)
    kind = torch.randint(6, (rows,), generator=g)
    found = torch.where(kind == 0, columns, torch.where(kind == 1, -1, torch.where(kind == 2, -2, found)))
    return found.to(dtype)


# Typical.


@CASES.add("dense", "quick")
def _(g):
    return arguments(logits(g, 5, 4), hard(g, 5, 4))


@CASES.add("retinanet")
def _(g):
    return arguments(logits(g, 2, 150, 91), hard(g, 2, 150, 91), reduction="sum")


@CASES.add("map", "quick")  # 4-D: has a memory format
def _(g):
    return arguments(logits(g, 2, 3, 5, 6), hard(g, 2, 3, 5, 6), gamma=1.5)


@CASES.add("classes", "quick")
def _(g):
    return arguments(logits(g, 11, 7), classes(g, 11, 7))


for _reduction in ("mean", "sum"):

    @CASES.add(f"classes-{_reduction}", "quick" if _reduction == "sum" else "")
    def _(g, reduction=_reduction):
        return arguments(logits(g, 3, 60, 80), classes(g, 180, 80).view(3, 60), reduction=reduction)


@CASES.add("mean")
def _(g):
    return arguments(logits(g, 37, 5), soft(g, 37, 5), reduction="mean", alpha=0.5)


@CASES.add("classes-map")
def _(g):
    return arguments(logits(g, 2, 3, 4, 5), classes(g, 24, 5).view(2, 3, 4))


for _type in (torch.uint8, torch.int32):

    @CASES.add(f"classes-{str(_type).removeprefix('torch.')}")
    def _(g, dtype=_type):
        return arguments(logits(g, 40, 3), classes(g, 40, 3, dtype), gamma=0.5)


# One column, and rows longer than what is written out at a time.


@CASES.add("one-class")
def _(g):
    return arguments(logits(g, 700, 1), classes(g, 700, 1), reduction="sum")


@CASES.add("many-classes")
def _(g):
    return arguments(logits(g, 3, 1203), classes(g, 3, 1203))


# Exponents and weights.

for _gamma in (0.0, 0.5, 1.0, 3.0, 5.0):

    @CASES.add(f"gamma={_gamma:g}")
    def _(g, gamma=_gamma):
        return arguments(logits(g, 300, spread=8), torch.cat([soft(g, 100), hard(g, 200)]), gamma=gamma)


for _alpha in (-1.0, 0.0, 1.0):

    @CASES.add(f"alpha={_alpha:g}")
    def _(g, alpha=_alpha):
        return arguments(logits(g, 131), soft(g, 131), alpha=alpha)


@CASES.add("scalar")
def _(g):
    return arguments(logits(g, 1)[0], hard(g, 1)[0])


# Small enough for numerical derivatives.


@CASES.add("gradient", "gradient")
def _(g):
    return arguments(logits(g, 3, 4), soft(g, 3, 4), gamma=2.5)


@CASES.add("gradient-sum", "gradient")
def _(g):
    return arguments(logits(g, 4, 3), classes(g, 4, 3), reduction="sum")


@CASES.add("gradient-mean", "gradient")
def _(g):
    return arguments(logits(g, 11), hard(g, 11), reduction="mean", gamma=0.0, alpha=-1.0)


# Empty.


@CASES.add("nothing", "empty quick")
def _(g):
    return arguments(logits(g, 0, 4), hard(g, 0, 4))


@CASES.add("nothing-mean", "empty")  # NaN, as in torch
def _(g):
    return arguments(logits(g, 0), hard(g, 0), reduction="mean")


@CASES.add("no-classes", "empty")
def _(g):
    return arguments(logits(g, 5, 0), torch.full((5,), -1), reduction="sum")


@CASES.add("no-rows", "empty")
def _(g):
    return arguments(logits(g, 0, 80), torch.empty(0, dtype=torch.int64))


# Hostile: far logits, numbers that are none, and classes that no column has.

FAR = (0.0, -0.0, 1e-30, 17.0, 60.0, 87.0, 88.5, 104.0, 709.0, 745.2, 30000.0, 1e30, 1e300, INF)


def _far(*signs: float) -> torch.Tensor:
    return torch.tensor([sign * x for sign in signs for x in FAR], dtype=torch.float64)


for _gamma in (2.0, 1.5):

    @CASES.add(f"far-gamma={_gamma:g}", "hostile quick" if _gamma == 2 else "hostile")
    def _(g, gamma=_gamma):
        x = _far(1, -1)
        return arguments(x.repeat(2), torch.cat([torch.zeros(len(x)), torch.ones(len(x))]).double(), gamma=gamma)


@CASES.add("nan", "hostile quick")
def _(g):
    x, t = logits(g, 40), hard(g, 40)
    x[::7], t[3::11] = NAN, NAN
    return arguments(x, t, gamma=1.5)


@CASES.add("nan-ignored", "hostile quick")  # an ignored row is not looked at
def _(g):
    x = logits(g, 9, 5)
    x[1], x[4], x[6] = NAN, INF, -INF
    return arguments(x, torch.tensor([0, -2, -1, 4, -2, 2, -2, 5, 1]), reduction="sum")


@CASES.add("extreme-classes", "hostile")
def _(g):
    far = [-(2**63), 2**63 - 1, 2**32, 2**31, -(2**31), 2**32 + 1, -3]
    return arguments(logits(g, 7, 6), torch.tensor(far))


# Large.


@CASES.add("several-chunks", "large")
def _(g):
    return arguments(logits(g, 40009), hard(g, 40009), reduction="sum")


@CASES.add("several-chunks-classes", "large")
def _(g):
    return arguments(logits(g, 701, 91), classes(g, 701, 91), reduction="mean")


# Arguments that must be refused.


def _refused(**changes: object):
    def make() -> Arguments:
        return {**arguments(torch.zeros(4, 3), torch.zeros(4, 3)), **changes}

    return make


def _refused_backward(**changes: object):
    def make() -> Arguments:
        options = {"alpha": 0.25, "gamma": 2.0, "reduction": 0}
        return {"grad": torch.zeros(6), **arguments(torch.zeros(6), torch.zeros(6)), **options, **changes}

    return make


BACKWARD = "sigmoid_focal_loss_backward"
ROWS = r"targets must be \[\.\.\.\], a class for each row"
ERRORS = (
    ErrorCase("inputs-integer", _refused(inputs=torch.zeros(4, 3).int()), r"inputs must be float16"),
    ErrorCase("inputs-none", _refused(inputs=None), r"inputs must be a tensor"),
    ErrorCase(
        "inputs-scalar", _refused(inputs=torch.zeros(()), targets=torch.tensor(0)), r"inputs must be \[\.\.\., C\]"
    ),
    ErrorCase("targets-none", _refused(targets=None), r"targets must be a tensor"),
    ErrorCase("targets-bool", _refused(targets=torch.zeros(4, 3).bool()), r"targets must be floating point or integer"),
    ErrorCase("targets-shape", _refused(targets=torch.zeros(3, 4)), r"targets must be the shape of inputs"),
    ErrorCase("targets-rank", _refused(targets=torch.zeros(12)), r"targets must be the shape of inputs"),
    ErrorCase("classes-shape", _refused(targets=torch.zeros(3).long()), ROWS),
    ErrorCase("classes-dense", _refused(targets=torch.zeros(4, 3).long()), ROWS),
    ErrorCase(
        "targets-device", _refused(targets=torch.zeros(4, 3, device="meta")), r"targets must be on the same device"
    ),
    ErrorCase("alpha", _refused(alpha=1.5), r"alpha must be at most 1"),
    ErrorCase("alpha-nan", _refused(alpha=NAN), r"alpha must be at most 1"),
    ErrorCase("gamma-negative", _refused(gamma=-0.5), r"gamma must be 0 or more"),
    ErrorCase("gamma-nan", _refused(gamma=NAN), r"gamma must be 0 or more"),
    ErrorCase("gamma-infinite", _refused(gamma=INF), r"gamma must be 0 or more and finite"),
    ErrorCase("op-targets-type", _refused_backward(targets=torch.zeros(6).double()), r"type of inputs", op=BACKWARD),
    ErrorCase("op-targets-size", _refused_backward(targets=torch.zeros(5)), r"shape of inputs", op=BACKWARD),
    ErrorCase("op-classes", _refused_backward(targets=torch.zeros(6).long()), r"a class for each row", op=BACKWARD),
    ErrorCase("op-reduction", _refused_backward(reduction=3), r"reduction must be 0", op=BACKWARD),
    ErrorCase("grad-shape", _refused_backward(grad=torch.zeros(())), r"grad must have the shape", op=BACKWARD),
    ErrorCase("grad-size", _refused_backward(grad=torch.zeros(5)), r"grad must have the shape", op=BACKWARD),
    ErrorCase("grad-reduced", _refused_backward(reduction=2), r"grad must have the shape of the loss", op=BACKWARD),
    ErrorCase("grad-type", _refused_backward(grad=torch.zeros(6).half()), r"grad must have the type", op=BACKWARD),
)


def torchvision_loss(inputs, targets, alpha=0.25, gamma=2, reduction="none"):
    """torchvision's, with classes made one-hot and ignored rows taken out again."""
    import torchvision

    if targets.is_floating_point():
        return torchvision.ops.sigmoid_focal_loss(inputs, targets, alpha, gamma, reduction)
    targets = targets.long()
    one_hot = (targets[..., None] == torch.arange(inputs.shape[-1])).to(inputs.dtype)
    loss = torchvision.ops.sigmoid_focal_loss(inputs, one_hot, alpha, gamma)
    loss = torch.where((targets != -2)[..., None], loss, 0)
    if reduction == "none":
        return loss
    return loss.mean() if reduction == "mean" else loss.sum()


SPECS = (
    OpSpec(
        name="sigmoid_focal_loss",
        function=sigmoid_focal_loss,
        dispatcher_ops=("sigmoid_focal_loss", "sigmoid_focal_loss_backward"),
        cases=tuple(CASES),
        errors=ERRORS,
        data=("inputs", "targets"),
        differentiable=("inputs",),
        scale="outputs",
        peer={"torchvision": torchvision_loss},
    ),
)
