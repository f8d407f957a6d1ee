"""What can follow a transposed convolution and be folded into it, in the spellings of torch."""

from __future__ import annotations

import operator
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

MODULES: dict[type, str] = {
    nn.ReLU: "relu",
    nn.LeakyReLU: "leaky_relu",
    nn.GELU: "gelu",
    nn.SiLU: "silu",
    nn.Sigmoid: "sigmoid",
}
_FUNCTIONS: dict[Any, str] = {
    F.relu: "relu",
    F.relu_: "relu",
    torch.relu: "relu",
    torch.relu_: "relu",
    F.leaky_relu: "leaky_relu",
    F.gelu: "gelu",
    F.silu: "silu",
    F.sigmoid: "sigmoid",
    torch.sigmoid: "sigmoid",
}
_METHODS = {"relu": "relu", "relu_": "relu", "sigmoid": "sigmoid", "sigmoid_": "sigmoid"}
SUMS = (operator.add, torch.add, "add")  # either operand may be the skip
SUMS_IN_PLACE = (operator.iadd, "add_", "__iadd__")  # written to the first, which must be ours
_STATISTICS = ("weight", "bias", "running_mean", "running_var")


@dataclass(frozen=True)
class Link:
    """An operation to be folded in."""

    label: str
    settings: dict[str, Any]  # of the chain
    module: str | None = None  # that goes; without one the forward around it has to change


@dataclass
class Chain:
    """A call of a transposed convolution and the operations that become one with it."""

    owner: str  # the module whose forward it stands in
    conv: str
    nodes: list[fx.Node]
    folded: list[str] = field(default_factory=list)
    modules: list[str] = field(default_factory=list)  # that go
    norm: str | None = None
    activation: str = "none"
    slope: float = 0.01
    sum: fx.Node | None = None
    after: bool = False  # the sum, after the activation
    rewrites: bool = False  # the owner's forward has to change

    def add(self, node: fx.Node, link: Link) -> None:
        self.nodes.append(node)
        self.folded.append(link.label)
        for name, value in link.settings.items():
            setattr(self, name, value)
        if link.module is None:
            self.rewrites = True
        else:
            self.modules.append(link.module)

    @property
    def settings(self) -> tuple[Any, ...]:
        return self.norm, self.activation, self.slope, self.modules


def is_norm(module: nn.Module) -> bool:
    """A batch norm with fixed statistics: torch's two, and the frozen one of torchvision and detectron2."""
    if type(module).__name__ == "FrozenBatchNorm2d":
        statistics = (getattr(module, name, None) for name in _STATISTICS)
        return all(isinstance(s, torch.Tensor) for s in statistics) and hasattr(module, "eps")
    return type(module) in (nn.BatchNorm2d, nn.SyncBatchNorm) and module.running_mean is not None


def label_of(node: fx.Node, module: nn.Module) -> str:
    return f"{node.target} ({type(module).__name__})"


def other_operand(node: fx.Node, operand: fx.Node) -> Any:
    return node.args[1] if node.args[0] is operand else node.args[0]


def activation_of(node: fx.Node) -> tuple[str | None, Any, bool]:
    """Activation, slope and whether it is computed exactly, of a call that is no module's."""
    if node.op == "call_method":
        return _METHODS.get(str(node.target)), 0.01, len(node.args) == 1 and not node.kwargs
    name = _FUNCTIONS.get(node.target) if node.op == "call_function" else None
    kwargs = {k: v for k, v in node.kwargs.items() if k not in ("input", "inplace")}
    slope = kwargs.pop("negative_slope", node.args[1] if name == "leaky_relu" and len(node.args) > 1 else 0.01)
    return name, slope, bool(kwargs.pop("approximate", "none") == "none") and not kwargs
