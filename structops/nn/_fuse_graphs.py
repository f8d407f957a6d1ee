"""What :func:`structops.fuse_conv_transpose` sees of a model: which operations follow a module in a ``forward``, found
by torch.fx, and a ``forward`` written anew where functions among them go.

One module's ``forward`` is traced at a time, with its children as black boxes, so that a model need not be traceable as
a whole; plain ``nn.Sequential`` children are looked into.
"""

from __future__ import annotations

import importlib
import inspect
import itertools
import operator
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import torch
from torch import fx, nn

from structops.nn import _fuse_code

# What a trace would answer once and for all, or lose: types, gradients and the like of what is given.
_UNTRACEABLE = {"hasattr", "is_grad_enabled", "is_tensor", "isinstance", "random"}
_UNTRACEABLE |= {"autocast", "checkpoint", "enable_grad", "inference_mode", "no_grad", "set_grad_enabled"}
_CATCHES = ("CHECK_EXC_MATCH", "JUMP_IF_NOT_EXC_MATCH")  # in Python 3.11 and later, in 3.10
_VIEWS = (nn.Identity, nn.Flatten, nn.Unflatten, nn.modules.dropout._DropoutNd)  # in eval mode
_KNOWN = ("torch", "_operator", "builtins", "math")  # where the functions are that write only where their name says so
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class Untraceable(Exception):
    """Says why there are no graphs of a module."""


def hooked(module: nn.Module) -> bool:
    return any(getattr(module, name, None) for name in _HOOKS) or "forward" in vars(module)


def is_sequence(module: nn.Module) -> bool:
    """Whether calling it is calling its children one after the other."""
    return type(module).forward is nn.Sequential.forward and not hooked(module)


class _Proxy(fx.Proxy):
    """Keeps ``x += y`` what it is; torch.fx would read ``x = x + y``, and whoever else holds x would notice."""


def _in_place(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda self, other: self.tracer.create_proxy("call_function", function, (self, other), {})


_IN_PLACE = ["add", "sub", "mul", "matmul", "truediv", "floordiv", "mod", "pow", "and", "or", "xor", "lshift", "rshift"]
for _name in _IN_PLACE:
    setattr(_Proxy, f"__i{_name}__", _in_place(getattr(operator, f"__i{_name}__")))


class _Tracer(fx.Tracer):
    # What a forward does with a buffer is part of it: counting calls must not be done by the trace, and left out later.
    proxy_buffer_attributes = True

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return not is_sequence(m)


def _trace(module: nn.Module, given: dict[str, Any] | None = None) -> fx.Graph:
    modules = [m for m in module.modules() if not isinstance(m, torch.jit.ScriptModule)]
    before = [[dict(state) for state in (vars(m), m._buffers)] for m in modules]
    lists = [(v, list(v)) for m in modules for v in vars(m).values() if type(v) is list]
    try:
        graph, problem = _Tracer().trace(module, given), ""
    except Exception as error:  # what somebody's code raises when it is shown proxies can be anything
        problem = ": ".join(["torch.fx", type(error).__name__, *str(error).splitlines()[:1]])
    # Tensors made on the way are left on the module as constants, and some modules remember what they were given.
    for m, states in zip(modules, before, strict=True):
        for now, then in zip((vars(m), m._buffers), states, strict=True):
            if now.keys() != then.keys() or any(now[name] is not value for name, value in then.items()):
                now.clear()
                now.update(then)
                problem = problem or "it changes attributes of its module"
    for items, kept in lists:
        if len(items) != len(kept):
            items[:] = kept
            problem = problem or "it changes attributes of its module"
    if problem:
        raise Untraceable(problem)
    return graph


def graphs(module: nn.Module) -> list[fx.Graph]:
    """The graphs of ``module.forward``: one, or several where it has arguments that may be left out or None, because
    it may do something else then. Raises :class:`Untraceable`."""
    forward = getattr(type(module).forward, "__func__", type(module).forward)
    code = getattr(forward, "__code__", None)
    if code is None or hasattr(forward, "__wrapped__") or "forward" in vars(module):
        raise Untraceable("it is decorated or replaced")
    if not isinstance(module, fx.GraphModule):
        codes = [code, *(own for codes in _fuse_code.behind_forward(module).values() for own in codes)]
        if asked := _UNTRACEABLE & {name for own in codes for name in own.co_names}:
            raise Untraceable(f"it calls {', '.join(sorted(asked))}")
        if any(i.opname in _CATCHES for own in codes for i in _fuse_code.instructions(own)):
            raise Untraceable("it catches exceptions")
    parameters = list(inspect.signature(forward).parameters.values())[1:]
    absent = {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}
    absent = {
        p.name: absent.get(p.name) for p in parameters if p.name in absent or p.name in _fuse_code.may_be_none(code)
    }
    return [_trace(module), *_traces_without(module, absent)]


def _traces_without(module: nn.Module, absent: dict[str, Any]) -> Iterator[fx.Graph]:
    """With none of the arguments that may be absent, and with some (of more than three, all but one)."""
    if absent:
        yield _trace(module, absent)
    for count in range(1, len(absent) if len(absent) <= 3 else 2):
        for names in itertools.combinations(absent, count):
            try:
                yield _trace(module, {name: absent[name] for name in names})
            except Untraceable as problem:
                if "TraceError" in str(problem):  # anything else: such a call is an error
                    raise


def calls(graph: fx.Graph) -> Iterator[tuple[str, fx.Node]]:
    for node in graph.nodes:
        if node.op == "call_module":
            yield str(node.target), node


def only_user(node: fx.Node) -> fx.Node | None:
    """The one operation that reads the result of ``node``, once."""
    if len(node.users) != 1:
        return None
    user = next(iter(node.users))
    reads: list[fx.Node] = []
    fx.node.map_arg((user.args, user.kwargs), reads.append)
    return user if user.op != "output" and reads.count(node) == 1 else None


def may_write(node: fx.Node, called: nn.Module | None, watched: set[fx.Node]) -> bool:
    """Whether an operation, or the module that it calls, may change one of the ``watched`` tensors."""
    given = bool(watched & set(node.all_input_nodes))
    if called is not None:
        if any(getattr(m, "inplace", False) for m in called.modules()):
            return True
        return given and not type(called).__module__.startswith("torch.nn.")
    if node.op == "call_function" and not (getattr(node.target, "__module__", "") or "torch").startswith(_KNOWN):
        return given
    name = _name_of(node)
    in_place = name.endswith("_") and not name.endswith("__")
    operator = getattr(node.target, "__module__", "") == "_operator" and name.startswith("i") and name != "index"
    return in_place or operator or name in ("setitem", "__setitem__") or bool({"inplace", "out"} & node.kwargs.keys())


def sharing_memory(nodes: list[fx.Node], modules: Callable[[fx.Node], nn.Module | None]) -> set[fx.Node]:
    """``nodes`` and what may be views of them, or they of it."""
    found = set(nodes)
    views = [node for node in nodes[0].graph.nodes if _may_be_view(node, modules(node))] if nodes else []
    while new := {n for v in views for n in (v, *v.all_input_nodes) if found & {v, *v.all_input_nodes}} - found:
        found |= new
    return found


def _may_be_view(node: fx.Node, called: nn.Module | None) -> bool:
    """Whether the result may be, or hold, the memory of an argument. Of modules, torch's own are known; those of others
    are taken to compute something."""
    if node.op == "call_module":
        return isinstance(called, _VIEWS) or getattr(called, "inplace", False)
    if node.op not in ("call_function", "call_method"):
        return False
    name = _name_of(node)
    if name == "getattr":
        return node.args[1] not in ("shape", "dtype", "device", "ndim")
    packet = getattr(torch.ops.aten, name, None)
    if packet is None:  # getitem, or x.float(), which may be x
        return node.op == "call_method" or name == "getitem" or bool(node.kwargs.get("inplace"))
    schemas = [getattr(packet, overload)._schema for overload in packet.overloads()]
    schemas = [schema for schema in schemas if not any(argument.is_out for argument in schema.arguments)]
    return any(result.alias_info is not None for schema in schemas for result in schema.returns)


def _name_of(node: fx.Node) -> str:
    return node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")


# A module whose forward is written anew keeps its class, as a subclass made for the purpose: what else it is and does
# stays. torch.fx.GraphModule would lose its methods and attributes.


class _Rewritten:
    """Mixin of those classes; an object finds its way through pickle and deepcopy as base, source and names."""

    _source: str
    _names: dict[str, Any]

    def __reduce_ex__(self, protocol: Any) -> Any:
        own = type(self)
        names = {k: _Module(v.__name__) if isinstance(v, ModuleType) else v for k, v in own._names.items()}
        state = self.__getstate__() if hasattr(self, "__getstate__") else self.__dict__  # Python 3.10 has none
        return _restored, (own.__bases__[1], own._source, names), state


class _Module(str):
    """The name of a Python module, which cannot be pickled."""


def _restored(base: type, source: str, names: dict[str, Any]) -> Any:
    found = {k: importlib.import_module(v) if isinstance(v, _Module) else v for k, v in names.items()}
    own = _subclass(base, source, found)
    return object.__new__(own)


def _subclass(base: type, source: str, names: dict[str, Any]) -> type:
    namespace = dict(names)
    exec(compile(source, f"<{base.__name__}.forward, fused>", "exec"), namespace)
    body = {"forward": namespace["forward"], "_source": source, "_names": names, "__doc__": base.__doc__}
    body.update({"__module__": base.__module__, "__qualname__": base.__qualname__})
    return type(base.__name__, (_Rewritten, base), body)


def rewrite(module: nn.Module, graph: fx.Graph) -> None:
    """Let ``graph`` be what ``module`` does from now on."""
    graph.lint()
    if isinstance(module, fx.GraphModule):
        module.graph = graph
        return
    code = graph.python_code("self")
    base = type(module).__bases__[1] if isinstance(module, _Rewritten) else type(module)
    module.__class__ = _subclass(base, code.src, code.globals)


def replace(model: nn.Module, name: str, new: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, new)
