"""One run of one check: what is judged, on which arguments, against which expected values."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from structops._backend import backend
from structops.testing.spec import Arguments, Case, ErrorCase, OpSpec
from structops.testing.tolerances import TOLERANCES, Error, Tolerance, scale_of

#: "strided": no memory format at all, as a slice of a larger tensor has.
LAYOUTS = ("contiguous", "channels_last", "strided")


def interpreted(backend: str, device: str) -> bool:
    """Whether the kernels run under Triton's interpreter, some thousand times slower than compiled."""
    return backend == "triton" and (device == "cpu" or os.environ.get("TRITON_INTERPRET") == "1")


@dataclass(frozen=True)
class Target:
    """What is judged and how it is called.

    Attributes:
        function: somebody's own implementation with the public function's signature; ``backend`` is then only a
            label.
        relative: takes the place of the dtype's own relative tolerance (see
            :class:`~structops.testing.tolerances.Tolerance`); ``None``: it stays.
    """

    backend: str = "native"
    device: str = "cpu"
    dtype: torch.dtype = torch.float32
    layout: str = "contiguous"
    function: Callable[..., Any] | None = None
    relative: float | None = None

    @property
    def tolerance(self) -> Tolerance:
        return self.tolerance_for(self.dtype)

    def tolerance_for(self, dtype: torch.dtype) -> Tolerance:
        """That of results in ``dtype``."""
        own = TOLERANCES[dtype]
        return own if self.relative is None else replace(own, relative=self.relative)

    def context(self) -> AbstractContextManager[None]:
        """Within it, :mod:`structops.ops` run on the backend under test."""
        return nullcontext() if self.function else backend(self.backend)

    def call(self, spec: OpSpec, arguments: Arguments) -> list[torch.Tensor]:
        """The function's results: one for an op that returns a tensor, as many as it returns otherwise."""
        with self.context():
            return results_of((self.function or spec.function)(**arguments))

    def __str__(self) -> str:
        return f"{self.backend}-{self.device}-{str(self.dtype).removeprefix('torch.')}-{self.layout}"


@dataclass(frozen=True)
class Result:
    """The outcome of one check of one case."""

    check: str
    op: str
    case: str
    target: Target
    message: str | None = None  # why it failed
    skipped: str | None = None  # why it did not apply
    error: Error = field(default_factory=Error)
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        return self.message is None

    def __str__(self) -> str:
        state = f"FAILED: {self.message}" if self.message else f"skipped: {self.skipped}" if self.skipped else "passed"
        return f"{self.op} {self.check} [{self.case}, {self.target}] {state}"


class CheckFailure(AssertionError):
    """The op broke a promise."""


class OutOfTolerance(CheckFailure):
    """A value is too far from the definition."""

    def __init__(self, message: str, error: Error) -> None:
        super().__init__(message)
        self.error = error


class NotApplicable(Exception):
    """The check cannot say anything here."""


def require(condition: bool, message: str) -> None:
    if not condition:
        raise CheckFailure(message)


Check = Callable[[OpSpec, Any, Target], Result]  # a Case, or an ErrorCase


def check(body: Callable[[OpSpec, Any, Target], Error | None]) -> Check:
    """Makes ``body``, which raises when a promise is broken, into a check that returns a :class:`Result`.

    Anything that the judged function raises counts as a failure of the case, and never stops the others.
    """

    @functools.wraps(body)
    def run(spec: OpSpec, case: Case | ErrorCase, target: Target) -> Result:
        result = Result(body.__name__.removeprefix("check_"), spec.name, case.name, target)
        start = time.perf_counter()
        try:
            result = replace(result, error=body(spec, case, target) or Error())
        except NotApplicable as reason:
            result = replace(result, skipped=str(reason))
        except OutOfTolerance as failure:
            result = replace(result, message=str(failure), error=failure.error)
        except CheckFailure as failure:
            result = replace(result, message=str(failure))
        except Exception as exception:
            text = str(exception).strip()
            result = replace(result, message=f"raised {type(exception).__name__}: {text[:2000]}")
        return replace(result, seconds=time.perf_counter() - start)

    return run


def with_layout(x: torch.Tensor, layout: str) -> torch.Tensor:
    """A copy of ``x`` laid out as told; tensors that are not 4-D have no channels_last."""
    if layout == "contiguous" or x.dim() == 0:
        return x.clone(memory_format=torch.contiguous_format)
    if layout == "channels_last":
        return x.clone(memory_format=torch.channels_last if x.dim() == 4 else torch.contiguous_format)
    wide = x.new_zeros(*x.shape[:-1], 2 * x.shape[-1] + 1)[..., 1::2]  # every second element, from an odd offset
    return wide.copy_(x)


def map_tensors(value: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """An argument with each of its tensors changed, in a list too."""
    if isinstance(value, torch.Tensor):
        return change(value)
    if isinstance(value, list | tuple) and any(isinstance(v, torch.Tensor) for v in value):
        return [change(v) for v in value]
    return value


def quantised(spec: OpSpec, arguments: Arguments, dtype: torch.dtype) -> Arguments:
    """The arguments in the types that they have under test: see :class:`structops.testing.OpSpec`."""
    other = torch.promote_types(dtype, torch.float32)

    def change(name: str, x: torch.Tensor) -> torch.Tensor:
        wanted = dtype if name in spec.data else other
        return x.to(wanted) if x.dtype == torch.float64 else x

    return {name: map_tensors(v, functools.partial(change, name)) for name, v in arguments.items()}


def arguments_for(spec: OpSpec, case: Case, target: Target) -> Arguments:
    """Fresh arguments of a case for a target; differentiable ones require gradients."""

    def to_device(x: torch.Tensor) -> torch.Tensor:
        return x.to(target.device)

    arguments = {}
    for name, value in quantised(spec, case.draw(), target.dtype).items():
        layout = target.layout
        if name not in spec.data or (layout == "channels_last" and name not in spec.layouts):
            layout = "contiguous"
        arguments[name] = map_tensors(map_tensors(value, to_device), functools.partial(with_layout, layout=layout))
    for tensor in leaves(spec, arguments).values():
        tensor.requires_grad_()
    return arguments


def tensors_of(arguments: Arguments) -> Iterator[torch.Tensor]:
    for value in arguments.values():
        yield from tensors_in(value)


def tensors_in(value: Any) -> list[torch.Tensor]:
    """An argument's tensors: itself, or those of a list."""
    values = value if isinstance(value, list | tuple) else [value]
    return [v for v in values if isinstance(v, torch.Tensor)]


def results_of(returned: Any) -> list[torch.Tensor]:
    """What a function returned, a tensor or a tuple of them, as a list."""
    results = list(returned) if isinstance(returned, tuple | list) else [returned]
    for result in results:
        require(isinstance(result, torch.Tensor), f"the result must be a tensor, got {type(result).__name__}")
    return results


def leaves(spec: OpSpec, arguments: Arguments) -> dict[str, torch.Tensor]:
    """The tensors that have a gradient, by the argument's name (and the place in it, where it is a list). None for
    an optional argument that is None."""
    found = {}
    for name in spec.differentiable:
        if isinstance(arguments[name], torch.Tensor):
            found[name] = arguments[name]
        elif arguments[name] is not None:
            found |= {f"{name}[{i}]": t for i, t in enumerate(arguments[name])}
    return found


def with_leaves(spec: OpSpec, arguments: Arguments, values: Iterable[torch.Tensor]) -> Arguments:
    """The arguments with other tensors in the place of their :func:`leaves`."""
    rest = iter(values)
    return arguments | {name: map_tensors(arguments[name], lambda _: next(rest)) for name in spec.differentiable}


def incoming_gradient(output: torch.Tensor, layout: str = "contiguous") -> torch.Tensor:
    """A gradient for an output: unit variance, the same in every process and on every device."""
    values = torch.randn(output.shape, generator=torch.Generator().manual_seed(output.numel()), dtype=torch.float64)
    return with_layout(values.to(output.dtype).to(output.device), layout)


def differentiated(results: Iterable[torch.Tensor]) -> list[torch.Tensor]:
    """Those that carry a gradient."""
    return [result for result in results if result.requires_grad]


def incoming_gradients(results: Iterable[torch.Tensor], layout: str = "contiguous") -> list[torch.Tensor]:
    """One for each of :func:`differentiated`."""
    return [incoming_gradient(result.detach(), layout) for result in differentiated(results)]


def gradients(
    spec: OpSpec,
    arguments: Arguments,
    results: Iterable[torch.Tensor],
    grads: Iterable[torch.Tensor],
    **options: Any,
) -> list[torch.Tensor]:
    """Gradients of the :func:`leaves`, given those of the :func:`differentiated` results."""
    return list(
        torch.autograd.grad(differentiated(results), list(leaves(spec, arguments).values()), list(grads), **options)
    )


@dataclass(frozen=True)
class Expected:
    """What the definition says: results, gradients, and the magnitudes that errors are relative to."""

    results: tuple[torch.Tensor, ...]
    gradients: tuple[torch.Tensor, ...]
    scales: tuple[float, ...]
    gradient_scales: tuple[float, ...]


def expected(spec: OpSpec, case: Case, dtype: torch.dtype, device: str = "cpu") -> Expected:
    """The definition's answer for the arguments as ``dtype`` holds them: in float64 where results are close, in
    ``dtype`` where they are exact. ``device``: where it runs, if the spec says that this matters."""
    return _expected_on(spec, case, dtype, device if spec.own_device else "cpu")


# One entry serves every layout and backend, as a rule every device, and the definition is by far the slowest of them.
@functools.lru_cache(maxsize=1024)
def _expected_on(spec: OpSpec, case: Case, dtype: torch.dtype, device: str) -> Expected:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # thousands of tiny operations: on a busy machine threads spend minutes waiting
    try:
        return _expected(spec, case, dtype, device)
    finally:
        torch.set_num_threads(threads)


def _expected(spec: OpSpec, case: Case, dtype: torch.dtype, device: str) -> Expected:
    arguments = quantised(spec, case.draw(), dtype)
    if device != "cpu":
        arguments = {name: map_tensors(value, lambda x: x.to(device)) for name, value in arguments.items()}
    if spec.compare == "close":
        widen = lambda x: x.double() if x.is_floating_point() else x  # noqa: E731
        arguments = {name: map_tensors(value, widen) for name, value in arguments.items()}
    for tensor in leaves(spec, arguments).values():
        tensor.requires_grad_()
    with backend("reference"):
        results = results_of(spec.function(**arguments))
    detached = tuple(result.detach() for result in results)
    by_result = spec.scale == "outputs"
    inputs = scale_of(*(t for n in spec.data for t in tensors_in(arguments[n])))
    scales = tuple(scale_of(result) if by_result else inputs for result in detached)
    if not spec.differentiable:
        return Expected(detached, (), scales, ())
    grads = quantised_gradients(spec, results, dtype)
    found = gradients(spec, arguments, results, grads)
    largest = 0.0 if by_result else scale_of(*grads)
    return Expected(detached, tuple(found), scales, tuple(max(largest, scale_of(g)) for g in found))


def quantised_gradients(spec: OpSpec, results: Iterable[torch.Tensor], dtype: torch.dtype) -> list[torch.Tensor]:
    """Incoming gradients with values that a result has under ``dtype``, in the type of each result at hand."""
    own = spec.result_dtype(dtype)
    return [incoming_gradient(r.detach().to(own)).to(r.dtype) for r in differentiated(results)]
