"""Which implementation runs: the one place where a backend is chosen, and the class that ties an op's
implementations together.

Every op exists under one schema in up to three dispatcher namespaces, so that each backend has the same fake
kernel, autograd formula and compile support:

===========  ========================  =============================================
backend      namespace                 implementation
===========  ========================  =============================================
native       ``structops``             C++ on CPU, CUDA on GPU
triton       ``structops_triton``      ``structops.triton_kernels.<module>.<op>``
reference    ``structops_reference``   ``structops.reference.<module>.<op>``
===========  ========================  =============================================
"""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import warnings
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import torch
from torch.autograd import forward_ad

from structops import _libraries
from structops._layout import follow

BACKENDS = ("native", "triton", "reference")
_NAMESPACES = {"native": "structops", "triton": "structops_triton", "reference": "structops_reference"}

#: what a schema's types are to the caller
_WORDS = {
    "Optional[Tensor]": "a tensor or None",
    "int": "a whole number of 64 bits",
    "Optional[int]": "a whole number of 64 bits, or None",
    "List[int]": "whole numbers of 64 bits",
    "float": "a number",
    "Optional[float]": "a number or None",
    "bool": "True or False",
}

_override: ContextVar[str | None] = ContextVar("structops_backend", default=None)
# Before 2.14, torch.compile cannot trace ContextVar.get. It reads this copy of the latest change instead, which is
# right as long as only one thread at a time switches backends while another compiles.
_override_seen_by_compiler: str | None = None
_COMPILER_READS_CONTEXT = tuple(int(part) for part in torch.__version__.split(".")[:2]) >= (2, 14)
_warned: set[str] = set()

#: every op by name; filled by the modules of :mod:`structops.ops` as they are imported
OPS: dict[str, Op] = {}


def _validated(name: str, source: str) -> str:
    if name not in BACKENDS:
        raise ValueError(f"{source} must be one of {', '.join(BACKENDS)}, got {name!r}")
    return name


_default = _validated(os.environ.get("STRUCTOPS_BACKEND") or "native", "STRUCTOPS_BACKEND")


@contextlib.contextmanager
def backend(name: str) -> Iterator[None]:
    """``with structops.backend("triton"):`` runs every structops op of this thread (or task) on one backend.

    A context manager (or decorator): calling it without ``with`` changes nothing.

    Args:
        name: ``"native"`` (C++ or CUDA; the default), ``"triton"`` or ``"reference"``.

    The environment variable ``STRUCTOPS_BACKEND`` sets the default. Nests; the inner one wins.
    """
    global _override_seen_by_compiler
    token = _override.set(_validated(name, "backend"))
    _override_seen_by_compiler = name
    try:
        yield
    finally:
        _override.reset(token)
        _override_seen_by_compiler = _override.get()


def current_backend() -> str:
    """The backend asked for here: the innermost :func:`backend`, else ``STRUCTOPS_BACKEND``, else native."""
    if not _COMPILER_READS_CONTEXT and torch.compiler.is_compiling():
        return _override_seen_by_compiler or _default
    return _override.get() or _default


def unusable(name: str, device_type: str) -> str | None:
    """Why a backend cannot run on a device type; ``None`` when it can."""
    if name == "reference":
        return None
    if name == "native":
        if device_type not in ("cpu", "cuda"):
            return f"there is no native kernel for device type {device_type!r}"
        return _libraries.problems["_C_cuda" if device_type == "cuda" else "_C"]
    if not _libraries.loaded("_C"):
        return f"the op's schemas come from _C, which is not loaded: {_libraries.problems['_C']}"
    if not _libraries.loaded("triton"):
        return _libraries.problems["triton"]
    if device_type == "cpu" and os.environ.get("TRITON_INTERPRET") != "1":
        return "Triton runs on CPU tensors only under its interpreter (set TRITON_INTERPRET=1 before importing triton)"
    return None


def _first(args: tuple[Any, ...]) -> Any:
    """An op's first argument, or the first of the tensors in it: decides device, dtype and memory format."""
    return args[0][0] if isinstance(args[0], list | tuple) and args[0] else args[0]


def _tensors(args: tuple[Any, ...]) -> Iterator[torch.Tensor]:
    """The tensors among an op's arguments, and in its lists of them, in order."""
    for a in args:
        if isinstance(a, torch.Tensor):
            yield a
        elif isinstance(a, list | tuple):
            yield from (t for t in a if isinstance(t, torch.Tensor))


def _detached(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arguments without a history, where they have one."""
    if not any(t.requires_grad for t in _tensors(args)):
        return args

    def detach(a: Any) -> Any:
        if isinstance(a, list | tuple):
            return [detach(each) for each in a]
        return a.detach() if isinstance(a, torch.Tensor) else a

    return tuple(detach(a) for a in args)


def resolve(device_type: str) -> str:
    """The backend that runs on a device type: the one asked for, else (native only) the best that is usable."""
    name = current_backend()
    problem = unusable(name, device_type)
    if problem is None or device_type == "meta":
        return name
    if name != "native":
        raise RuntimeError(f"structops: backend {name!r} cannot run on {device_type}: {problem}")
    fallback = "triton" if unusable("triton", device_type) is None else "reference"
    if fallback == "reference" and device_type not in _warned:
        _warned.add(device_type)
        warnings.warn(
            f"structops runs its slow reference implementation on {device_type}: {problem}",
            RuntimeWarning,
            stacklevel=3,
        )
    return fallback


class Op:
    """One dispatcher op on every backend.

    Args:
        name: the op's name in the dispatcher; also that of the functions that implement it in
            ``structops.reference.<module>`` and ``structops.triton_kernels.<module>``.
        module: the file those live in.
        check: takes the op's arguments, raises ``RuntimeError`` naming the bad one.
        fake: takes the op's arguments, returns an empty output of the right shape, dtype and strides.
        backward, setup_context: as :func:`torch.library.register_autograd` takes them, except that ``backward``
            gets the namespace (``torch.ops.structops`` and so on) first, so that it stays on the forward's backend.
            Left out: the op is not differentiable.
    """

    def __init__(
        self,
        name: str,
        *,
        module: str,
        check: Callable[..., None],
        fake: Callable[..., Any],
        backward: Callable[..., Any] | None = None,
        setup_context: Callable[..., Any] | None = None,
    ) -> None:
        self.name, self.module, self.check, self.fake = name, module, check, fake
        self.differentiable = backward is not None
        #: the ``torch.ops`` overload of each backend
        self.overloads: dict[str, Any] = {}
        self._libraries: list[torch.library.Library] = []
        OPS[name] = self
        if not _libraries.loaded("_C"):
            return  # no schema, hence no dispatcher op: __call__ runs the reference as a plain function
        schema = str(getattr(torch.ops.structops, name).default._schema)
        self.signature = schema.split("::", 1)[1]
        for backend_name, namespace in _NAMESPACES.items():
            if backend_name != "native":
                library = torch.library.Library(namespace, "FRAGMENT")
                library.define(self.signature, tags=(torch.Tag.pt2_compliant_tag,))
                library.impl(name, self._checked(backend_name), "CompositeExplicitAutograd")
                self._libraries.append(library)  # its destructor would undo the registration
            qualified = f"{namespace}::{name}"
            torch.library.register_fake(qualified, self._fake)
            if backward is not None:
                here = getattr(torch.ops, namespace)
                torch.library.register_autograd(
                    qualified,
                    lambda ctx, *grads, here=here: backward(here, ctx, *grads),
                    setup_context=setup_context,
                )
            self.overloads[backend_name] = getattr(getattr(torch.ops, namespace), name).default

    def _fake(self, *args: Any) -> Any:
        self.check(*args)
        return self.fake(*args)

    def implementation(self, backend_name: str) -> Callable[..., Any]:
        """The Python function behind the reference or Triton backend."""
        package = {"triton": "structops.triton_kernels", "reference": "structops.reference"}[backend_name]
        return getattr(importlib.import_module(f"{package}.{self.module}"), self.name)

    def _checked(self, backend_name: str) -> Callable[..., Any]:
        def run(*args: Any) -> Any:
            self.check(*args)
            first = _first(args)
            # Autocast is decided outside: a matrix product in here must not be lowered to a half type.
            with torch.autocast(first.device.type, enabled=False):
                return follow(self.implementation(backend_name)(*args), first)

        return run

    def _refuse_tangents(self, args: tuple[Any, ...]) -> None:
        # register_autograd knows reverse mode only, and lets the tangent of a forward-mode input fall away unsaid.
        if forward_ad._current_level >= 0 and any(
            forward_ad.unpack_dual(a).tangent is not None for a in _tensors(args)
        ):
            raise NotImplementedError(
                f"structops.{self.name} has no forward-mode derivative (torch.func.jvp, jacfwd, hessian); "
                f"use reverse mode (torch.autograd.grad, torch.autograd.functional)"
            )

    def _explain(self, args: tuple[Any, ...], refusal: Exception) -> None:
        """An argument of the wrong type the dispatcher refuses in its own words, with the whole schema or worse."""
        declared = torch._C.parse_schema(self.signature).arguments
        for argument, given in zip(declared, args, strict=False):
            if str(argument.type) == "Tensor" and not isinstance(given, torch.Tensor):
                raise RuntimeError(f"{self.name}: {argument.name} must be a tensor, got {type(given).__name__}")
        if found := re.search(r"Expected a value of type '(.+?)' for argument '(\w+)' but", str(refusal)):
            wanted, name = _WORDS.get(found[1], f"a {found[1]}"), found[2]
            given = next(given for argument, given in zip(declared, args, strict=False) if argument.name == name)
            raise RuntimeError(f"{self.name}: {name} must be {wanted}, got {given!r:.100}") from None

    def __call__(self, *args: Any) -> Any:
        first = _first(args)
        if not isinstance(first, torch.Tensor):
            raise RuntimeError(f"{self.name}: the first argument must be a tensor, got {type(first).__name__}")
        if not self.differentiable:
            args = _detached(args)  # or torch takes a floating result for one with a gradient
        elif not torch.compiler.is_compiling():
            self._refuse_tangents(args)
        if not _libraries.loaded("_C"):
            resolve(first.device.type)
            return self._checked("reference")(*args)
        overload = self.overloads[resolve(first.device.type)]
        if torch.compiler.is_compiling():
            return overload(*args)
        try:
            return overload(*args)
        except (AttributeError, RuntimeError) as refusal:
            self._explain(args, refusal)  # only now: an ordinary call does not pay for it
            raise
