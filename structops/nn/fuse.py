"""Transposed convolutions of other people's models, made one with what follows them."""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import fx, nn

from structops.nn import _fuse_code, _fuse_graphs
from structops.nn._fuse_patterns import (
    MODULES,
    SUMS,
    SUMS_IN_PLACE,
    Chain,
    Link,
    activation_of,
    is_norm,
    label_of,
    other_operand,
)
from structops.nn.conv_transpose2d import ConvTranspose2d, FusedConvTranspose2d
from structops.nn.upsampling import BilinearUpsample2d

_CONVOLUTIONS = (nn.ConvTranspose2d, ConvTranspose2d, BilinearUpsample2d)


@dataclass(frozen=True)
class FusionReport:
    """What :func:`fuse_conv_transpose` did; prints as a table.

    Attributes:
        fused: name of each transposed convolution that was replaced, and what was folded into it, in order.
        left: name of each that was not, and why.
    """

    fused: dict[str, tuple[str, ...]] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)

    def _after(self, earlier: FusionReport) -> FusionReport:
        """Both reports of one model; what was fused before may look like a layer that is left as it is."""
        fused = {**earlier.fused, **self.fused}
        left = {name: why for name, why in {**earlier.left, **self.left}.items() if name not in fused}
        return FusionReport(fused, left)

    def __str__(self) -> str:
        rows = [(name, " -> ".join(parts)) for name, parts in self.fused.items()]
        rows += [(name, f"left as it is: {reason}") for name, reason in self.left.items()]
        width = max((len(name) for name, _ in rows), default=0)
        count = f"{len(self.fused)} of {len(rows)} transposed convolutions fused"
        return "\n".join([count, *(f"  {name:{width}}  {what}" for name, what in rows)])


def fuse_conv_transpose(model: nn.Module, inplace: bool = False, *, replace_bare: bool = False) -> nn.Module:
    """Make each ConvTranspose2d one kernel with the BatchNorm2d, activation and skip addition that follow it.

    >>> model = structops.fuse_conv_transpose(model.eval())
    >>> print(model.fusion_report)

    Args:
        model: in eval mode.
        inplace: change ``model`` itself; otherwise it stays as it is, and a copy is changed.
        replace_bare: make those :class:`structops.nn.ConvTranspose2d` that nothing can be folded into, as in a U-Net
            that concatenates its skips. Their kernel is the faster one for most layers, in NHWC with few channels not.

    Returns:
        the model, of the same class and with the same results but for rounding. Convolutions are
        :class:`structops.nn.FusedConvTranspose2d` under their old names; norms and activations that were folded in are
        ``nn.Identity``, as ``torch.ao.quantization.fuse_modules`` leaves them. Where a functional activation or an
        addition went, the ``forward`` of the module around it is written anew, for eval mode. ``fusion_report`` of the
        model says what was done.

    Fused are ``act(norm(conv(x)) + skip)`` and ``act(norm(conv(x))) + skip``, or as much of them as there is, in
    any spelling that torch.fx can read: modules, functions, methods, in-place or not. Where a ``forward`` cannot be
    traced, what its ``nn.Sequential`` children hold is still fused. A weight that is zero except from each channel
    to itself (bilinear upsampling of a segmenter's scores) becomes a depthwise one; for finite inputs the result is
    the same.

    Nothing is fused that is read more than once, that has hooks or parametrizations, that the model shares, or that a
    method besides ``forward`` calls; methods that find it by ``getattr`` or ``children()`` are not recognized.
    A ``forward`` that is written anew keeps for good what it decides by attributes of its module other than tensors.

    Load weights first: where a norm was folded in, ``state_dict`` has ``scale`` and ``shift`` of the convolution
    instead. The result can be trained on, compiled, exported and traced, but not scripted; in training mode, statistics
    that were folded in stand still, and a ``forward`` that was written anew does what it does in eval mode.

    Raises:
        RuntimeError: for what is no module, or one in training mode: a batch norm there has no fixed statistics to
            fold.
    """
    if not isinstance(model, nn.Module):
        raise RuntimeError(f"fuse_conv_transpose: model must be a torch.nn.Module, got {type(model).__name__}")
    for name, module in model.named_modules():
        if module.training:
            where = f"{name or 'the model'} is in training mode"
            raise RuntimeError(f"fuse_conv_transpose: the model must be in eval mode (model.eval()), {where}")
    earlier = getattr(model, "fusion_report", None)  # of which torch.fx.GraphModule makes no copy
    model = model if inplace else copy.deepcopy(model)
    report = _Fusion(model, replace_bare).run()
    model.fusion_report = report._after(earlier) if isinstance(earlier, FusionReport) else report  # type: ignore
    return model


class _Fusion:
    def __init__(self, model: nn.Module, replace_bare: bool) -> None:
        self.model, self.replace_bare = model, replace_bare
        self.modules = dict(model.named_modules())
        everywhere = Counter(id(m) for _, m in model.named_modules(remove_duplicate=False))
        self.shared = {name for name, m in self.modules.items() if everywhere[id(m)] > 1}
        self.called: Counter[str] = Counter()  # module -> calls, in the fullest graph of each owner
        self.read: set[str] = set()  # modules whose tensors are read by others
        self.untraced: dict[str, str] = {}  # owner -> why it has no graphs
        self.taken: set[fx.Node] = set()  # operations that are folded into one convolution already

    def run(self) -> FusionReport:
        report = FusionReport()
        names = []
        for name, module in self.modules.items():
            if name and type(module) in _CONVOLUTIONS:
                names.append(name)
            elif name and isinstance(module, nn.ConvTranspose2d) and not isinstance(module, FusedConvTranspose2d):
                report.left[name] = f"it is a {type(module).__name__}"
        traced = self._traced(names)
        found: dict[str, list[Chain]] = {name: [] for name in names}
        for owner, graphs in traced.items():
            # A sequence may be sliced, and its slices are made by its class.
            modules_only = len(graphs) > 1 or _fuse_graphs.is_sequence(self.modules[owner])
            for graph in graphs:
                for target, node in _fuse_graphs.calls(graph):
                    if (conv := _join(owner, target)) in found and not self._untouchable(conv):
                        found[conv].append(self._chain(owner, node, modules_only))
        chosen: list[Chain] = []
        for conv in names:
            reason = self._refused(conv, found[conv])
            chain = found[conv][0] if found[conv] and not reason else None
            if chain is not None and not chain.folded:
                reason, chain = "nothing that follows it can be folded in", None
            bare = self.replace_bare and type(self.modules[conv]) is nn.ConvTranspose2d
            bare = bare and bool(found[conv]) and chain is None and not self._untouchable(conv)
            diagonal = bool(found[conv]) and not self._untouchable(conv) and _diagonal(self.modules[conv])
            if chain is None and not diagonal and not bare:
                report.left[conv] = reason
                continue
            channels = self.modules[conv].weight.shape[0]
            depthwise = (f"{channels} x {channels} diagonal weight made depthwise",) if diagonal else ()
            report.fused[conv] = (*depthwise, *(chain.folded if chain else ())) or ("by itself",)
            self._replace(conv, chain, diagonal)
            chosen += [chain] if chain else []
        for owner in {chain.owner for chain in chosen if chain.rewrites}:
            graph = traced[owner][0]
            for chain in chosen:
                if chain.owner == owner:
                    _splice(graph, chain)
            _fuse_graphs.rewrite(self.modules[owner], graph)
        return report

    def _traced(self, convs: list[str]) -> dict[str, list[fx.Graph]]:
        """The graphs of every module around a transposed convolution, outermost first; a sequence that one of them
        looks into has none of its own."""
        owners = [owner for owner in self.modules if any(_inside(conv, owner) for conv in convs)]
        traced: dict[str, list[fx.Graph]] = {}
        for owner in owners:
            module = self.modules[owner]
            inside = any(_inside(name, owner) for name in self.called)
            if isinstance(module, nn.ModuleList | nn.ModuleDict) or (_fuse_graphs.is_sequence(module) and inside):
                continue
            try:
                if self._taken_apart(owner):
                    raise _fuse_graphs.Untraceable("parts of it are used by a forward that cannot be traced")
                traced[owner] = _fuse_graphs.graphs(module)
            except _fuse_graphs.Untraceable as reason:
                self.untraced[owner] = str(reason)
                continue
            calls = [Counter(_join(owner, target) for target, _ in _fuse_graphs.calls(g)) for g in traced[owner]]
            for name in set().union(*calls):
                self.called[name] += max(count[name] for count in calls)
            for graph in traced[owner]:
                reads = [str(node.target) for node in graph.nodes if node.op == "get_attr"]
                self.read |= {_join(owner, _parent(name)) for name in reads if "." in name}
        return traced

    def _taken_apart(self, owner: str) -> bool:
        """Whether a forward that cannot be traced may call some layers of a sequence by themselves."""
        if not _fuse_graphs.is_sequence(self.modules[owner]):
            return False
        while owner and _fuse_graphs.is_sequence(self.modules[_parent(owner)]):
            owner = _parent(owner)
        return any(
            _inside(owner, other) and _fuse_code.takes_apart(self.modules[other], _own_name(owner))
            for other in self.untraced
        )

    def _untouchable(self, name: str) -> str | None:
        module = self.modules[name]
        if name in self.shared or self.called[name] > 1:
            return "it is used more than once"
        if name in self.read:
            return "its tensors are used elsewhere"
        return "it has hooks" if _fuse_graphs.hooked(module) else None

    def _refused(self, conv: str, chains: list[Chain]) -> str:
        if reason := self._untouchable(conv):
            return reason
        if not chains:
            around = [owner for owner in self.untraced if _inside(conv, owner)]
            innermost = max(around, key=len, default=None)
            if innermost is None:
                return "no forward calls it"
            forward = f"{type(self.modules[innermost]).__name__}.forward"
            return f"no forward that can be traced calls it ({forward}: {self.untraced[innermost]})"
        if any(chain.settings != chains[0].settings for chain in chains):
            return "what follows it depends on the arguments"
        return self._called_besides(chains[0]) if chains[0].folded else ""

    def _called_besides(self, chain: Chain) -> str:
        """Why a part of the chain must stay what it is: a method that no graph shows calls it.

        Each module from a part up to the chain's owner is looked for in the methods of all modules around it. Who calls
        one that holds the whole chain gets the same as before, unless the owner's forward is written anew.
        """
        parts = [chain.conv, *chain.modules]
        for part in parts:
            called = part
            while _inside(called, chain.owner):
                apart = chain.rewrites or not all(_inside(other, called) for other in parts)
                outer = _parent(called)
                while apart:
                    path = called[len(outer) + 1 if outer else 0 :].split(".")
                    module = self.modules[outer]
                    method = _fuse_code.other_caller(module, path, forward_too=outer in self.untraced)
                    if method is not None:
                        it = "it" if part == chain.conv else part
                        return f"{it} is called by {type(module).__name__}.{method} too"
                    if not outer:
                        break
                    outer = _parent(outer)
                called = _parent(called)
        return ""

    def _chain(self, owner: str, node: fx.Node, modules_only: bool) -> Chain:
        """Everything that can be folded into the convolution called at ``node``."""
        chain = Chain(owner, _join(owner, str(node.target)), [node])
        # A second argument means something else to the fused module.
        chain.rewrites = len(node.args) != 1 or bool(node.kwargs.keys() - {"output_size"})
        for part in (self._norm, self._skip, self._activation, self._skip):
            following = _fuse_graphs.only_user(chain.nodes[-1])
            if following is None or following in self.taken or (modules_only and chain.rewrites):
                break
            link = part(chain, following)
            if link is not None and (link.module is not None or not modules_only):
                chain.add(following, link)
                self.taken.add(following)
        return chain

    def _module(self, chain: Chain, node: fx.Node) -> tuple[str, nn.Module] | None:
        """The module that ``node`` calls with one tensor."""
        if node.op != "call_module" or len(node.args) + len(node.kwargs) != 1:
            return None
        name = _join(chain.owner, str(node.target))
        module = self.modules.get(name)
        return None if module is None or _fuse_graphs.hooked(module) else (name, module)

    def _norm(self, chain: Chain, node: fx.Node) -> Link | None:
        found = self._module(chain, node)
        if found is None or not is_norm(found[1]) or self._untouchable(found[0]):
            return None
        return Link(label_of(node, found[1]), {"norm": found[0]}, found[0])

    def _activation(self, chain: Chain, node: fx.Node) -> Link | None:
        found = self._module(chain, node)
        goes = None
        if found is not None:
            name, module = found
            activation, label = MODULES.get(type(module)), label_of(node, module)
            slope = getattr(module, "negative_slope", 0.01)
            exact = getattr(module, "approximate", "none") == "none"
            goes = None if self._untouchable(name) else name  # one that others call as well stays for them
        else:
            activation, slope, exact = activation_of(node)
            label = activation or ""
        if activation is None or not exact or not isinstance(slope, int | float):
            return None
        return Link(label, {"activation": activation, "slope": float(slope)}, goes)

    def _skip(self, chain: Chain, node: fx.Node) -> Link | None:
        if chain.sum is not None or node.op not in ("call_function", "call_method"):
            return None
        if len(node.args) != 2 or node.kwargs or node.target not in (*SUMS, *SUMS_IN_PLACE):
            return None
        last = chain.nodes[-1]
        skip = other_operand(node, last)
        if not isinstance(skip, fx.Node) or (node.target in SUMS_IN_PLACE and node.args[0] is not last):
            return None
        # The convolution moves to where the addition is, past everything in between.
        own = set(chain.nodes)
        watched = _fuse_graphs.sharing_memory(chain.nodes[0].all_input_nodes, partial(self._called, chain))
        watched -= own
        between = chain.nodes[0].next
        while between is not node:
            if between not in own and _fuse_graphs.may_write(between, self._called(chain, between), watched):
                return None
            between = between.next
        return Link(f"+ {skip.name}", {"sum": node, "after": chain.activation != "none"})

    def _called(self, chain: Chain, node: fx.Node) -> nn.Module | None:
        return self.modules.get(_join(chain.owner, str(node.target))) if node.op == "call_module" else None

    def _replace(self, conv: str, chain: Chain | None, diagonal: bool) -> None:
        module = self.modules[conv]
        norm = self.modules[chain.norm] if chain and chain.norm else None
        _fuse_graphs.replace(self.model, conv, _fused(module, norm, chain, diagonal))
        for name in chain.modules if chain else ():
            _fuse_graphs.replace(self.model, name, nn.Identity().eval())


def _join(owner: str, name: str) -> str:
    return f"{owner}.{name}" if owner else name


def _parent(name: str) -> str:
    return name.rpartition(".")[0]


def _own_name(name: str) -> str:
    return name.rpartition(".")[2]


def _inside(name: str, owner: str) -> bool:
    return name != owner and (not owner or name.startswith(f"{owner}."))


def _diagonal(module: nn.Module) -> bool:
    """Whether each channel goes to itself alone."""
    weight = module.weight.detach()  # type: ignore[operator, union-attr]
    channels = weight.shape[0]
    if weight.is_meta or module.groups != 1 or channels != weight.shape[1] or channels == 1:
        return False
    own = weight.diagonal()  # [kernel height, kernel width, C]
    return bool((own != 0).flatten(0, 1).any(0).all()) and int(weight.count_nonzero()) == int(own.count_nonzero())


def _fused(conv: Any, norm: Any, chain: Chain | None, diagonal: bool) -> nn.Module:
    """The module that takes the place of ``conv``; it has its parameters, or new ones where the numbers differ."""
    options = {
        "stride": conv.stride,
        "padding": conv.padding,
        "output_padding": conv.output_padding,
        "groups": conv.in_channels if diagonal else conv.groups,
        "bias": conv.bias is not None and norm is None,
        "dilation": conv.dilation,
        "device": "meta",
    }
    sizes = conv.in_channels, conv.out_channels, conv.kernel_size
    fused: Any
    if chain is None:
        fused = ConvTranspose2d(*sizes, **options)
    else:
        fused = FusedConvTranspose2d(
            *sizes,
            **options,
            affine=norm is not None,
            activation=chain.activation,
            negative_slope=chain.slope,
            residual_after_activation=chain.after,
        )
    fused.weight, fused.bias = conv.weight, conv.bias
    if diagonal:
        own = conv.weight.detach().diagonal().permute(2, 0, 1)[:, None].contiguous()
        fused.weight = nn.Parameter(own, conv.weight.requires_grad)
    if norm is not None:
        mean, variance = norm.running_mean.double(), norm.running_var.double()
        scale = (variance + norm.eps).rsqrt() * (1 if norm.weight is None else norm.weight.detach().double())
        shift = (-mean if conv.bias is None else conv.bias.detach().double() - mean) * scale
        shift = shift + (0 if norm.bias is None else norm.bias.detach().double())
        dtype = torch.promote_types(norm.running_mean.dtype, torch.float32)
        learns = isinstance(norm.weight, nn.Parameter) and norm.weight.requires_grad
        fused.scale, fused.shift = (nn.Parameter(v.to(dtype), learns) for v in (scale, shift))
        fused.bias = None
    return fused.eval()


def _splice(graph: fx.Graph, chain: Chain) -> None:
    """Put one call in the place of the chain's."""
    first, last = chain.nodes[0], chain.nodes[-1]
    input = first.args[0] if first.args else first.kwargs["input"]
    output_size = first.args[1] if len(first.args) > 1 else first.kwargs.get("output_size")
    kwargs: dict[str, Any] = {} if output_size is None else {"output_size": output_size}
    with graph.inserting_before(chain.sum or first.next):
        if chain.sum is None:
            call = graph.call_module(str(first.target), (input,), kwargs)
        else:
            skip = other_operand(chain.sum, chain.nodes[chain.nodes.index(chain.sum) - 1])
            call = graph.call_module(str(first.target), (input, skip), kwargs)
    last.replace_all_uses_with(call)
    for node in reversed(chain.nodes):
        graph.erase_node(node)
