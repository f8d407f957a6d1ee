"""Focal loss as one-stage detectors train on it: the class logits of all anchors, summed, and their gradient."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace

import torch

from structops import ops
from structops.reference import sigmoid_focal_loss as definition
from structops.testing.workloads import SHORT, Cost, Trial, Workload, generator, torchvision_ops

# Of the sum, and of each gradient relative to the largest.
TOLERANCE = {torch.float32: 1e-5, torch.float16: 2.0**-9, torch.bfloat16: 2.0**-7}
CHECKED_ROWS = 64
# Operations of one element; a transcendental function counts as one.
FORWARD_FLOPS, BACKWARD_FLOPS = 16, 22


@dataclass(frozen=True)
class Shape:
    """Logits ``[rows, columns]``; one row in ``sparsity`` has a class, one in ten is ignored."""

    title: str
    rows: int
    columns: int
    sparsity: int = 1000


RETINANET = Shape("RetinaNet", 268_569, 90)  # of one image of 800 x 1333
FCOS = Shape("FCOS", 8_525, 80)  # of one image of 640 x 640


def cost(shape: Shape, itemsize: int, classes: bool, kind: str) -> Cost:
    """Logits and targets (or a class of 8 bytes a row) read once by each direction, a gradient written once."""
    elements = shape.rows * shape.columns
    read = elements * itemsize + (8 * shape.rows if classes else elements * itemsize)
    if kind == "backward":
        return Cost(2 * read + elements * itemsize, elements * (FORWARD_FLOPS + BACKWARD_FLOPS))
    return Cost(read, elements * FORWARD_FLOPS)


def _classes(shape: Shape, draw: torch.Generator) -> torch.Tensor:
    kind = torch.randint(shape.sparsity, (shape.rows,), generator=draw)
    found = torch.randint(shape.columns, (shape.rows,), generator=draw)
    found = torch.where(kind == 0, found, torch.full_like(found, -1))
    return torch.where(kind % 10 == 9, -2, found)


def _one_hot(classes: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """What torchvision's detectors make of the classes before every call."""
    targets = torch.zeros_like(like)
    rows = classes >= 0
    targets[rows, classes[rows]] = 1.0
    return targets


def make(shape: Shape, dtype: torch.dtype, classes: bool, kind: str, name: str, device: torch.device) -> Trial:
    """Draws ``shape``.

    Args:
        classes: integer targets; the peer makes them one-hot and leaves out ignored rows, as its detectors do.
        kind: ``"forward"``, or ``"backward"``: the forward and the backward.
    """
    draw = generator(name)
    x = (2 * torch.randn(shape.rows, shape.columns, generator=draw) - 4).to(device, dtype)
    chosen = _classes(shape, draw).to(device)
    if not classes:
        chosen = chosen.clamp(min=-1)
    targets = chosen if classes else _one_hot(chosen, x)
    x.requires_grad_(kind == "backward")
    library = torchvision_ops()

    def ours() -> torch.Tensor:
        return ops.sigmoid_focal_loss(x, targets, reduction="sum")

    def theirs() -> torch.Tensor:
        if not classes:
            return library.sigmoid_focal_loss(x, targets, reduction="sum")
        counted = chosen != -2
        return library.sigmoid_focal_loss(x[counted], _one_hot(chosen[counted], x[counted].detach()), reduction="sum")

    def gradient(loss) -> torch.Tensor:
        return torch.autograd.grad(loss(), x)[0]

    run, peer = ours, theirs
    if kind == "backward":
        run, peer = functools.partial(gradient, ours), functools.partial(gradient, theirs)

    def check(result: torch.Tensor, peer_result: torch.Tensor | None) -> None:
        some = slice(0, CHECKED_ROWS)
        part = x.detach()[some].double()
        pair = (part, chosen[some]) if classes else (part.flatten(), targets[some].double().flatten())
        if kind == "backward":
            one = torch.ones((), dtype=torch.float64, device=device)
            wanted = definition.sigmoid_focal_loss_backward(one, *pair, 0.25, 2.0, 2).view_as(part)
            found = result[some]
        else:
            wanted = definition.sigmoid_focal_loss(*pair, 0.25, 2.0, 2)
            found = ops.sigmoid_focal_loss(x.detach()[some], targets[some], reduction="sum")
        scale = wanted.abs().max().item()
        error = (found.detach().double() - wanted).abs().max().item()
        assert error <= TOLERANCE[dtype] * scale, f"sigmoid_focal_loss differs from the definition by {error:.2e}"
        if peer_result is not None and dtype == torch.float32:
            # torchvision's own sums and its 1 - p_t round: the whole is compared as far as they go.
            error = (result.double() - peer_result.double()).abs().max().item()
            allowed = 1e-4 * peer_result.double().abs().max().item()
            assert error <= allowed, f"sigmoid_focal_loss differs from torchvision's by {error:.2e}"

    peer_name = "torchvision, one-hot" if classes else "torchvision"
    costs = cost(shape, dtype.itemsize, classes, kind)
    return Trial(run, peer if library is not None else None, peer_name, check, lambda _: costs)


def _workload(shape: Shape, classes: bool, dtype: torch.dtype = torch.float32, kind: str = "forward", **rest):
    sweep = bool(rest.get("series"))
    targets = "classes" if classes else "dense"
    words = [shape.title, targets, "step" if kind == "backward" else "", str(shape.rows) if sweep else "", SHORT[dtype]]
    name = "-".join(word for word in words if word).lower()
    title = f"{' '.join(word for word in words[:-1] if word)}, {SHORT[dtype]}"
    draw = functools.partial(make, shape, dtype, classes, kind, f"sigmoid_focal_loss-{name}")
    return Workload("sigmoid_focal_loss", name, title, "sweep" if sweep else kind, dtype, draw, **rest)


def _all() -> tuple[Workload, ...]:
    found = []
    for kind in ("forward", "backward"):
        for classes in (False, True):
            found.append(_workload(RETINANET, classes, kind=kind, quick=True))
            found.append(_workload(FCOS, classes, kind=kind, quick=kind == "backward"))
            found.append(_workload(RETINANET, classes, torch.bfloat16, kind, devices=("cuda",)))
    for rows in (300, 3000, 30_000, 300_000):
        shape = replace(RETINANET, rows=rows, title="sweep")
        series = "anchors of 90 classes, forward and backward"
        found.append(_workload(shape, False, kind="backward", quick=rows == 3000, series=series, size=rows))
    return tuple(found)


WORKLOADS = _all()
