"""What the methods of a module do with its children, read from their byte code: for :mod:`structops.nn.fuse`, of
methods that torch.fx is not shown or cannot trace."""

from __future__ import annotations

import dis
import inspect
import itertools
from types import CodeType
from typing import Any

from torch import nn


def takes_apart(module: nn.Module, child: str) -> bool:
    """Whether ``module.forward``, or a method that it calls, does more with that child than call it: ``self.child[0]``
    and ``self.child[:2]`` are parts of a sequence."""
    return any(_reads(code, child) for codes in behind_forward(module).values() for code in codes)


def other_caller(module: nn.Module, path: list[str], forward_too: bool) -> str | None:
    """The method of ``module`` that calls what is found under ``path`` (``["block", "up"]``), besides ``forward`` and
    what that reaches, unless ``forward_too``."""
    skipped = {"__init__"} if forward_too else {"__init__", *behind_forward(module)}
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


def behind_forward(module: nn.Module) -> dict[str, list[CodeType]]:
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


def instructions(code: CodeType) -> list[dis.Instruction]:
    return [i for i in dis.get_instructions(code) if i.opname not in ("EXTENDED_ARG", "NOP")]


def _call(codes: list[CodeType], path: list[str], by_index: bool) -> bool:
    """Whether, in the code of a method, the module under ``path`` is called, or one that it holds:
    ``self.block.up(x)``, ``self.layers[0](x)``. What is only looked at (``self.up.weight``,
    ``isinstance(self.up, ...)``) is not."""
    me = codes[0].co_varnames[0] if codes and codes[0].co_varnames else "self"
    found = [instruction for code in codes for instruction in instructions(code)]
    # Of what is neither a method nor global. Python 3.10 has one word for both kinds; later ones have another.
    functions = sum(i.opname == "CALL_FUNCTION" for i in found)
    attributes = ("LOAD_ATTR", "LOAD_METHOD")
    globals_ = sum(i.opname == "LOAD_GLOBAL" and then.opname not in attributes for i, then in itertools.pairwise(found))
    calls_locals = functions > globals_ or any(i.opname == "PUSH_NULL" for i in found)
    calls_locals = calls_locals or any("checkpoint" in code.co_names for code in codes)
    if not path:
        return calls_locals
    for before, instruction, after in zip(found, found[1:], found[2:], strict=False):
        if instruction.opname not in attributes or instruction.argval != path[-1]:
            continue
        holder = before.argval[-1] if isinstance(before.argval, tuple) else before.argval
        if (holder == me) != (len(path) == 1):
            continue
        if len(path) > 1 and before.opname == "LOAD_ATTR" and path[-2].isidentifier() and holder != path[-2]:
            continue
        if instruction.opname == "LOAD_METHOD" or "NULL|self" in instruction.argrepr:
            if not by_index:
                return True
        elif after.opname in attributes:
            if after.argval == "forward" and not by_index:
                return True
        elif calls_locals:
            return True
    return False


def _reads(code: CodeType, attribute: str) -> bool:
    """Whether an attribute is read, and not to be called nor to see whether there is one (in words of Python 3.10 to
    3.14)."""
    found = instructions(code)
    for i, instruction in enumerate(found):
        if instruction.opname == "LOAD_ATTR" and instruction.argval == attribute:
            following = [later.opname for later in found[i + 1 : i + 3]]
            called = "NULL|self" in instruction.argrepr
            asked = following[0].startswith(("POP_JUMP", "TO_BOOL", "UNARY_NOT")) or following[1:] == ["IS_OP"]
            if not (called or asked):
                return True
    return False


def may_be_none(code: CodeType) -> set[str]:
    """The variables that are compared with None."""
    found = instructions(code)
    asked = set()
    for loaded, following, then in zip(found, found[1:], found[2:], strict=False):
        is_none = following.opname == "LOAD_CONST" and following.argval is None and then.opname == "IS_OP"
        if is_none or (following.opname.startswith("POP_JUMP") and following.opname.endswith("NONE")):
            asked |= set(loaded.argval if isinstance(loaded.argval, tuple) else [loaded.argval])
    return asked
