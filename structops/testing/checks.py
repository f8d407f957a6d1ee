"""What every op promises about its values, one check each. Each takes ``(spec, case, target)`` and returns a Result."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from structops._layout import memory_format
from structops.testing.run import (
    CheckFailure,
    NotApplicable,
    OutOfTolerance,
    Target,
    arguments_for,
    check,
    differentiated,
    expected,
    gradients,
    incoming_gradients,
    interpreted,
    leaves,
    map_tensors,
    quantised_gradients,
    require,
    tensors_in,
    tensors_of,
)
from structops.testing.spec import Arguments, Case, OpSpec
from structops.testing.tolerances import (
    PEER_LARGEST_MAP,
    PEER_RELATIVE,
    TOLERANCES,
    Error,
    Tolerance,
    distance,
    scale_of,
)


@check
def check_values(spec: OpSpec, case: Case, target: Target) -> Error:
    """Shape, dtype, device and values are the definition's."""
    results = target.call(spec, arguments_for(spec, case, target))
    wanted, worst = expected(spec, case, target.dtype, target.device), Error()
    require(len(results) == len(wanted.results), f"{len(results)} results, expected {len(wanted.results)}")
    dtype = spec.result_dtype(target.dtype)
    for where, result, want, scale in zip(_places(results), results, wanted.results, wanted.scales, strict=True):
        on = f"{where}the result is on {result.device}, the arguments on {target.device}"
        require(result.device.type == target.device, on)
        if spec.compare == "exact" or not want.is_floating_point():
            _require_equal(result, want, where)
            continue
        require(result.dtype == dtype, f"{where}the result is {result.dtype}, the input {target.dtype}")
        worst = worst.worst(_require_close(where, result, want, scale, dtype, target.tolerance_for(dtype)))
    return worst


@check
def check_gradients(spec: OpSpec, case: Case, target: Target) -> Error:
    """Gradients are the definition's; none flows where the op has none."""
    arguments = arguments_for(spec, case, target)
    for name in () if spec.differentiable else spec.data:
        for tensor in tensors_in(arguments[name]):
            tensor.requires_grad_()
    results = target.call(spec, arguments)
    carrying = differentiated(results)
    if not spec.differentiable:
        require(not carrying, "the op is not differentiable, but its result requires a gradient")
        return Error()
    if target.function is not None and not carrying:
        raise NotApplicable("the result carries no gradient")
    require(bool(carrying), "the result carries no gradient")
    wanted, worst = expected(spec, case, target.dtype), Error()
    found = gradients(spec, arguments, results, incoming_gradients(results, target.layout))
    of = leaves(spec, arguments)
    for name, got, want, scale in zip(of, found, wanted.gradients, wanted.gradient_scales, strict=True):
        require(got.dtype == of[name].dtype, f"the gradient of {name} is {got.dtype}")
        error = _require_close(f"gradient of {name}: ", got, want, scale, target.dtype, target.tolerance)
        worst = worst.worst(error)
    return worst


@check
def check_layout(spec: OpSpec, case: Case, target: Target) -> None:
    """The output, where it is a map, follows the input's memory format; a gradient of any strides gives the same."""
    if not spec.layouts:
        raise NotApplicable("no argument has a memory format")
    arguments = arguments_for(spec, case, target)
    output = target.call(spec, arguments)[0]
    wanted = memory_format(tensors_in(arguments[spec.layouts[0]])[0]) if output.dim() == 4 else torch.contiguous_format
    require(
        output.is_contiguous(memory_format=wanted),
        f"the output must be {wanted} as the input, got shape {list(output.shape)} with strides {output.stride()}",
    )
    if not output.requires_grad:
        return
    one = torch.ones((), dtype=output.dtype, device=output.device)
    expanded = gradients(spec, arguments, [output], [one.expand(output.shape)], retain_graph=True)
    for layout in ("contiguous", "channels_last"):
        dense = torch.ones_like(output, memory_format=getattr(torch, f"{layout}_format", torch.channels_last))
        found = gradients(spec, arguments, [output], [dense], retain_graph=True)
        for name, a, b in zip(leaves(spec, arguments), expanded, found, strict=True):
            scale = scale_of(b) if spec.scale == "outputs" else float(output.shape[0])
            _require_close(f"gradient of {name}, expanded against {layout}: ", a, b.double(), scale, target.dtype)


@check
def check_determinism(spec: OpSpec, case: Case, target: Target) -> None:
    """Forward and backward are bitwise the same from run to run, and for one thread and two."""
    before = torch.get_num_threads()
    first = forward_backward(spec, case, target)
    # An interpreter knows no threads, and takes seconds.
    repeats = (before,) if interpreted(target.backend, target.device) else (1, 2, before)
    try:
        for threads in repeats:
            if target.device == "cpu":
                torch.set_num_threads(threads)
            for name, a, b in zip(_parts(spec, case, first), first, forward_backward(spec, case, target), strict=True):
                at = f" ({threads} threads after {before})" if target.device == "cpu" else ""
                require(identical(a, b), f"{name} differs from run to run{at}: {_difference(a, b)}")
    finally:
        torch.set_num_threads(before)


@check
def check_aliasing(spec: OpSpec, case: Case, target: Target) -> None:
    """Arguments are left as they were, and the output is memory of its own; a graph can be used twice."""
    arguments = arguments_for(spec, case, target)
    before = [(t, t.detach().clone(), t._version) for t in tensors_of(arguments)]
    results = target.call(spec, arguments)
    made = [result.detach() for result in results]
    if differentiated(results):
        grads = incoming_gradients(results)
        first = gradients(spec, arguments, results, grads, retain_graph=True)
        second = gradients(spec, arguments, results, grads)
        require(all(map(identical, first, second)), "the second backward through one graph differs from the first")
        made += first
        require(all(map(identical, grads, incoming_gradients(results))), "the incoming gradient was written to")
    for tensor, copy, version in before:
        require(tensor._version == version and identical(tensor, copy), "an argument was written to")
        for one in made:
            if one.numel() and tensor.numel():
                shared = one.untyped_storage().data_ptr() == tensor.untyped_storage().data_ptr()
                require(not shared, "a result shares memory with an argument")


@check
def check_poison(spec: OpSpec, case: Case, target: Target) -> None:
    """Every element of the results is written: with fresh memory full of NaN they are the same."""
    plain = forward_backward(spec, case, target)
    with poisoned_memory():
        # Also memory that torch did not hand out as empty: blocks of these sizes, filled and freed.
        blocks = [torch.full_like(t, _poison(t.dtype)) for t in plain for _ in range(4)]
        del blocks
        poisoned = forward_backward(spec, case, target)
    for name, a, b in zip(_parts(spec, case, plain), plain, poisoned, strict=True):
        require(identical(a, b), f"{name} depends on what its memory held before: {_difference(a, b)}")


@check
def check_autocast(spec: OpSpec, case: Case, target: Target) -> None:
    """Under autocast the op computes what it computes without: in its input's type, with its own wider maths. Or, where
    its spec says so, in the lower type; float64 is never lowered."""
    lower = torch.bfloat16 if target.device == "cpu" else torch.float16
    if spec.lowers and target.dtype != torch.float64:
        arguments = arguments_for(spec, case, target)
        lowered = {name: map_tensors(arguments[name], lambda x: x.to(lower)) for name in spec.lowers}
        with torch.autocast(target.device, dtype=lower):
            results = target.call(spec, arguments)
        for result, want in zip(results, target.call(spec, arguments | lowered), strict=True):
            require(result.dtype == lower, f"the result is {result.dtype} under autocast to {lower}")
            _, problem = distance(result, want.detach().double(), scale_of(want), lower)
            require(problem is None, f"under autocast: {problem}")
        return
    plain = forward_backward(spec, case, target)
    with torch.autocast(target.device, dtype=lower):
        cast = forward_backward(spec, case, target)
    for name, a, b in zip(_parts(spec, case, plain), plain, cast, strict=True):
        require(a.dtype == b.dtype, f"{name} is {a.dtype}, under autocast {b.dtype}")
        require(identical(a, b), f"{name} differs under autocast: {_difference(a, b)}")


@check
def check_peers(spec: OpSpec, case: Case, target: Target) -> Error:
    """Agrees with the same function of other libraries, as far as their own arithmetic allows.

    Close results: always with the peer in float64; in float32 only on maps so small that the peer's float32
    coordinates permit. Never called on hostile numbers, which peers do not survive.
    """
    if case.tags & {"hostile", "empty"}:
        raise NotApplicable("peers make no promise for empty or hostile arguments")
    worst, called = Error(), 0
    for name, peer in spec.peer.items():
        arguments = arguments_for(spec, case, target)
        on_cpu = Target("peer", "cpu", target.dtype, "contiguous", peer)
        try:
            theirs = _forward_backward_widened(spec, case, on_cpu, torch.float64)
        except ImportError:
            continue
        called += 1
        results = target.call(spec, arguments)
        if spec.compare == "exact":
            theirs_as_is = on_cpu.call(spec, arguments_for(spec, case, on_cpu))
            require(len(results) == len(theirs_as_is), f"{name} has {len(theirs_as_is)} results, not {len(results)}")
            for got, want in zip(results, theirs_as_is, strict=True):
                _require_equal(got, want, f"{name}: ")
            continue
        found = [result.detach() for result in results]
        if differentiated(results):
            found += gradients(spec, arguments, results, incoming_gradients(results))
        wanted = expected(spec, case, target.dtype)
        scales = (*wanted.scales, *wanted.gradient_scales)
        relative = TOLERANCES[torch.float64].relative if target.dtype == torch.float64 else PEER_RELATIVE
        tolerance = Tolerance(relative, 0, relative)
        for part, got, want, scale in zip(_parts(spec, case, found), found, theirs, scales, strict=True):
            where = f"{part} against {name}: "
            if got.is_floating_point():
                worst = worst.worst(_require_close(where, got, want, scale, target.dtype, tolerance))
            else:
                _require_equal(got, want, where)
        largest = max(max(t.shape[-2:], default=1) for n in spec.data for t in tensors_in(arguments[n]))
        if spec.scale == "inputs" and target.dtype == torch.float32 and largest <= PEER_LARGEST_MAP:
            theirs32 = on_cpu.call(spec, arguments_for(spec, case, on_cpu))[0].detach()
            _require_close(f"{name} in float32: ", results[0], theirs32, wanted.scales[0], target.dtype, tolerance)
    if not called:
        raise NotApplicable(f"none of {', '.join(spec.peer)} is installed")
    return worst


def identical(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Same type, shape and bits; any NaN equals any other, a negative zero is not a positive one."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    if not a.is_floating_point():
        return torch.equal(a, b)
    same = (a == b) & (a.signbit() == b.signbit()) | (a.isnan() & b.isnan())
    return bool(same.all())


@contextlib.contextmanager
def poisoned_memory() -> Iterator[None]:
    """Tensors that torch allocates empty hold NaN (the largest number, where they are integers)."""
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    options: Any = torch.utils.deterministic
    fill = options.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    options.fill_uninitialized_memory = True
    try:
        yield
    finally:
        options.fill_uninitialized_memory = fill
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)


def _places(results: list[torch.Tensor]) -> list[str]:
    """What a message about each result begins with: its number, where there are several."""
    return [""] if len(results) == 1 else [f"result {i}: " for i in range(len(results))]


def _parts(spec: OpSpec, case: Case, found: list[torch.Tensor]) -> tuple[str, ...]:
    """Names of results and gradients, in the order of :func:`forward_backward`."""
    of_gradients = [f"the gradient of {name}" for name in leaves(spec, case.draw())]
    count = len(found) - len(of_gradients)
    of_results = ["the output"] if count == 1 else [f"result {i}" for i in range(count)]
    return (*of_results, *of_gradients)


def forward_backward(spec: OpSpec, case: Case, target: Target) -> list[torch.Tensor]:
    """Results and gradients; empty gradients when a candidate has none."""
    return _with_gradients(spec, arguments_for(spec, case, target), target)


def _forward_backward_widened(spec: OpSpec, case: Case, target: Target, wide: torch.dtype) -> list[torch.Tensor]:
    """The same on the target's quantised arguments held in a wider type."""

    def widen(x: torch.Tensor) -> torch.Tensor:
        return x.detach().to(wide) if x.is_floating_point() else x

    arguments = {name: map_tensors(value, widen) for name, value in arguments_for(spec, case, target).items()}
    for tensor in leaves(spec, arguments).values():
        tensor.requires_grad_()
    return _with_gradients(spec, arguments, target)


def _with_gradients(spec: OpSpec, arguments: Arguments, target: Target) -> list[torch.Tensor]:
    results = target.call(spec, arguments)
    made = [result.detach() for result in results]
    if spec.differentiable and differentiated(results):
        made += gradients(spec, arguments, results, quantised_gradients(spec, results, target.dtype))
    elif spec.differentiable:
        made += [torch.zeros(0) for _ in leaves(spec, arguments)]
    return made


def _require_equal(got: torch.Tensor, want: torch.Tensor, where: str = "") -> None:
    got, want = got.detach().cpu(), want.detach().cpu()
    require(got.dtype == want.dtype, f"{where}the result is {got.dtype}, expected {want.dtype}")
    if torch.equal(got, want):
        return
    if got.dim() != 1 or want.dim() != 1 or got.is_floating_point():
        require(got.shape == want.shape, f"{where}shape {list(got.shape)}, expected {list(want.shape)}")
        same = (got == want) | (got.isnan() & want.isnan())
        require(bool(same.all()), f"{where}differs: {_difference(got, want)}")
        return
    n = min(len(got), len(want))
    differ = (got[:n] != want[:n]).nonzero()
    at = int(differ[0]) if len(differ) else n
    raise CheckFailure(
        f"{where}{len(got)} indices, expected {len(want)}; they part at position {at}: "
        f"got {got[at : at + 4].tolist()}, expected {want[at : at + 4].tolist()}"
    )


def _require_close(
    where: str,
    got: torch.Tensor,
    want: torch.Tensor,
    scale: float,
    dtype: torch.dtype,
    tolerance: Tolerance | None = None,
) -> Error:
    require(got.shape == want.shape, f"{where}shape {list(got.shape)}, expected {list(want.shape)}")
    error, problem = distance(got, want, scale, dtype, tolerance)
    if problem:
        raise OutOfTolerance(where + problem, error)
    return error


def _difference(a: torch.Tensor, b: torch.Tensor) -> str:
    if a.shape != b.shape or a.dtype != b.dtype:
        return f"{a.dtype} {list(a.shape)} and {b.dtype} {list(b.shape)}"
    differ = ~((a == b) | (a.isnan() & b.isnan()))
    if not differ.any():
        return "in the sign of a zero"
    at = differ.nonzero()[0].tolist()
    return f"{int(differ.sum())} of {a.numel()} elements, the first at {at}: {a[tuple(at)]} and {b[tuple(at)]}"


def _poison(dtype: torch.dtype) -> float | int:
    if dtype == torch.bool:
        return True
    return float("nan") if dtype.is_floating_point else torch.iinfo(dtype).max
