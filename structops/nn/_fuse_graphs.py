"""What :func:`structops.fuse_conv_transpose` sees of a model: which operations follow a module in a ``forward``, found
by torch.fx, and a ``forward`` written anew where functions among them go.

One module's ``forward`` is traced at a time, with its children as black boxes, so that a model need not be traceable as
a whole; plain ``nn.Sequential`` children are looked into.
"""

from __future__ import annotations

import dis
import importlib
import inspect
import itertools
import operator
from collections.abc import Callable, Iterable, Iterator
from types import CodeType, ModuleType
from typing import Any

import torch
from torch import fx, nn

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
        codes = [code, *(own for codes in _behind_forward(module).values() for own in codes)]
        if asked := _UNTRACEABLE & {name for own in codes for name in own.co_names}:
            raise Untraceable(f"it calls {', '.join(sorted(asked))}")
        if any(i.opname in _CATCHES for own in codes for i in _instructions(own)):
            raise Untraceable("it catches exceptions")
    parameters = list(inspect.signature(forward).parameters.values())[1:]
    absent = {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}
    absent = {p.name: absent.get(p.name) for p in parameters if p.name in absent or p.name in _may_be_none(code)}
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


def _may_be_none(code: CodeType) -> set[str]:
    """The variables that are compared with None."""
    found = _instructions(code)
    asked = set()
    for loaded, following, then in zip(found, found[1:], found[2:], strict=False):
        is_none = following.opname == "LOAD_CONST" and following.argval is None and then.opname == "IS_OP"
        if is_none or (following.opname.startswith("POP_JUMP") and following.opname.endswith("NONE")):
            asked |= set(loaded.argval if isinstance(loaded.argval, tuple) else [loaded.argval])
    return asked


def takes_apart(module: nn.Module, child: str) -> bool:
    """Whether ``module.forward``, or a method that it calls, does more with that child than call it: ``self.child[0]``
    and ``self.child[:2]`` are parts of a sequence."""
    return any(_reads(code, child) for codes in _behind_forward(module).values() for code in codes)


def other_caller(module: nn.Module, path: list[str], forward_too: bool) -> str | None:
    """The method of ``module`` that calls what is found under ``path`` (``["block", "up"]``), besides ``forward`` and
    what that reaches, unless ``forward_too``."""
    skipped = {"__init__"} if forward_too else {"__init__", *_behind_forward(module)}
    child: Any = module
    attributes: list[str] = []  # up to the last container: what comes after is found by an index
    for name in path:
        if isinstance(child, nn.Sequential | nn.ModuleList | nn.ModuleDict) and len(attributes) == len(path) - 1:
            break
        attributes.append(name)
        child = getattr(child, name)
    for kind in _kinds(module):
        for name in vars(kind).keys() - skipped:
            skipped.add(name)
            if _call(_codes(module, name), attributes, len(attributes) < len(path)):
                return name
    return None


def _behind_forward(module: nn.Module) -> dict[str, list[CodeType]]:
    """The code of ``forward`` and of the methods that it calls, and they."""
    names, found = ["forward"], {}
    while names:
        name = names.pop()
        if name not in found and (codes := _codes(module, name)):
            found[name] = codes
            names += [called for code in codes for called in code.co_names]
    return found


def _kinds(module: nn.Module) -> list[type]:
    """The classes of a module that are not torch's or Python's."""
    return [k for k in type(module).__mro__ if k.__module__.partition(".")[0] not in ("torch", "builtins", "typing")]


def _codes(module: nn.Module, name: str) -> list[CodeType]:
    """The code of a method or property, of the lambdas and comprehensions in it, and of what it overrides and calls by
    ``super()``."""
    found: list[CodeType] = []
    for namespace in (vars(module), *map(vars, _kinds(module))):
        method = namespace.get(name)
        method = method.fget if isinstance(method, property) else method
        codes = [getattr(inspect.unwrap(method), "__code__", None)] if callable(method) else []
        found += (code for code in codes if isinstance(code, CodeType))
        if codes and not any(name in getattr(code, "co_names", ()) for code in codes):
            break
    for code in found:  # which grows
        found += (inner for inner in code.co_consts if isinstance(inner, CodeType))
    return found


def _instructions(code: CodeType) -> list[dis.Instruction]:
    return [i for i in dis.get_instructions(code) if i.opname not in ("EXTENDED_ARG", "NOP")]


def _call(codes: list[CodeType], path: list[str], by_index: bool) -> bool:
    """Whether, in the code of a method, the module under ``path`` is called, or one that it holds:
    ``self.block.up(x)``, ``self.layers[0](x)``. What is only looked at (``self.up.weight``,
    ``isinstance(self.up, ...)``) is not."""
    me = codes[0].co_varnames[0] if codes and codes[0].co_varnames else "self"
    found = [instruction for code in codes for instruction in _instructions(code)]
    # Words of Python 3.11 and later for what is neither a method nor global; 3.10 has one for globals as well.
    calls_locals = bool({"PUSH_NULL", "CALL_FUNCTION"} & {i.opname for i in found})
    calls_locals = calls_locals or any("checkpoint" in code.co_names for code in codes)
    if not path:
        return calls_locals
    for before, instruction, after in zip(found, found[1:], found[2:], strict=False):
        if instruction.opname not in ("LOAD_ATTR", "LOAD_METHOD") or instruction.argval != path[-1]:
            continue
        holder = before.argval[-1] if isinstance(before.argval, tuple) else before.argval
        if (holder == me) != (len(path) == 1):
            continue
        if before.opname == "LOAD_ATTR" and path[-2].isidentifier() and holder != path[-2]:
            continue
        if instruction.opname == "LOAD_METHOD" or "NULL|self" in instruction.argrepr:
            if not by_index:
                return True
        elif after.opname in ("LOAD_ATTR", "LOAD_METHOD"):
            if after.argval == "forward" and not by_index:
                return True
        elif calls_locals:
            return True
    return False


def _reads(code: CodeType, attribute: str) -> bool:
    """Whether an attribute is read, and not to be called nor to see whether there is one (in words of Python 3.10 to
    3.14)."""
    found = _instructions(code)
    for i, instruction in enumerate(found):
        if instruction.opname == "LOAD_ATTR" and instruction.argval == attribute:
            following = [later.opname for later in found[i + 1 : i + 3]]
            called = "NULL|self" in instruction.argrepr
            asked = following[0].startswith(("POP_JUMP", "TO_BOOL", "UNARY_NOT")) or following[1:] == ["IS_OP"]
            if not (called or asked):
                return True
    return False


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


def reached(nodes: Iterable[fx.Node]) -> set[fx.Node]:
    """These and what is made of them: views among it share their memory."""
    found, new = set(nodes), list(nodes)
    while new:
        users = [user for user in new.pop().users if user not in found]
        found.update(users)
        new += users
    return found


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
