"""What every op promises to the systems around it: autograd, the dispatcher, torch.compile, torch.export, errors."""

from __future__ import annotations

import re
import warnings
from typing import Any

import torch

from structops.testing.checks import identical
from structops.testing.recording import Call, Recorder, captured
from structops.testing.run import (
    CheckFailure,
    NotApplicable,
    Target,
    arguments_for,
    check,
    differentiated,
    gradients,
    incoming_gradients,
    interpreted,
    leaves,
    map_tensors,
    require,
    results_of,
    tensors_in,
    with_leaves,
)
from structops.testing.spec import Arguments, Case, ErrorCase, OpSpec
from structops.testing.tolerances import distance, scale_of


def _differentiable_call(spec: OpSpec, case: Case, target: Target) -> tuple[Any, list[torch.Tensor]]:
    if not spec.differentiable:
        raise NotApplicable("the op is not differentiable")
    arguments = arguments_for(spec, case, target)
    inputs = list(leaves(spec, arguments).values())
    if target.function is not None and not differentiated(target.call(spec, arguments)):
        raise NotApplicable("the result carries no gradient")

    def function(*values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        # A box that is not finite gives NaN, whose numerical derivative is NaN; its derivative is defined as 0.
        results = target.call(spec, with_leaves(spec, arguments, values))
        return tuple(result.nan_to_num(0.0) for result in differentiated(results))

    return function, inputs


@check
def check_gradcheck(spec: OpSpec, case: Case, target: Target) -> None:
    """The backward is the derivative of the forward, numerically."""
    function, inputs = _differentiable_call(spec, case, target)
    # Fast: along one random direction, a few calls instead of two for each input element.
    torch.autograd.gradcheck(function, inputs, fast_mode=interpreted(target.backend, target.device))


@check
def check_gradgradcheck(spec: OpSpec, case: Case, target: Target) -> None:
    """The double backward is the derivative of the backward."""
    function, inputs = _differentiable_call(spec, case, target)
    slow = interpreted(target.backend, target.device)
    # Gradients that are not there are the formula's affair, which all backends share.
    torch.autograd.gradgradcheck(function, inputs, fast_mode=slow, check_undefined_grad=not slow)


def dispatcher_calls(spec: OpSpec, case: Case, target: Target) -> list[Call]:
    """What the public function and its backward ask of the dispatcher, for a case."""
    arguments = arguments_for(spec, case, target)
    with Recorder() as recorder:
        results = target.call(spec, arguments)
        if differentiated(results):
            gradients(spec, arguments, results, incoming_gradients(results, target.layout))
    return recorder.own


@check
def check_opcheck(spec: OpSpec, case: Case, target: Target) -> None:
    """``torch.library.opcheck``, all utilities, of each dispatcher op with the arguments that it really gets."""
    calls = dispatcher_calls(spec, case, target)
    if target.function is not None and not calls:
        raise NotApplicable("the candidate calls no structops op")
    seen = {func._schema.name.split("::")[1] for func, _, _ in calls}
    require(seen == set(spec.dispatcher_ops), f"called {sorted(seen)}, declared {sorted(spec.dispatcher_ops)}")
    for func, args, kwargs in calls:

        def fresh(value: Any) -> Any:
            def copy(x: torch.Tensor) -> torch.Tensor:
                fresh_x = x.detach().clone(memory_format=torch.preserve_format)
                return fresh_x.requires_grad_(bool(spec.differentiable) and value is args[0])  # noqa: B023

            return map_tensors(value, copy)

        torch.library.opcheck(func, tuple(fresh(a) for a in args), {k: fresh(v) for k, v in kwargs.items()})


def _compiled(spec: OpSpec, case: Case, target: Target, options: Arguments) -> None:
    torch._dynamo.reset()
    arguments = arguments_for(spec, case, target)
    plain = target.call(spec, arguments)
    function = torch.compile(lambda values: spec.function(**values), fullgraph=True, **options)
    # The size of an NMS result is known only at run time; without this torch would break the graph there.
    with target.context(), torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        compiled_results = results_of(function(arguments))
    for a, b in zip(plain, compiled_results, strict=True):
        require(identical(a, b), "the compiled result differs")
        require(a.stride() == b.stride(), f"strides {a.stride()}, compiled {b.stride()}")
    if differentiated(plain):
        grads = incoming_gradients(plain)
        eager, compiled = (gradients(spec, arguments, o, grads) for o in (plain, compiled_results))
        for a, b in zip(eager, compiled, strict=True):
            # Where a formula has sums of torch's own, the compiler adds up in another order.
            _, problem = distance(b, a.double(), scale_of(a), a.dtype, target.tolerance)
            require(problem is None, f"the compiled gradient differs: {problem}")


@check
def check_compile(spec: OpSpec, case: Case, target: Target) -> None:
    """``torch.compile(fullgraph=True)``, forward and backward, static and dynamic shapes, is the eager op: bitwise,
    but for the rounding of gradients."""
    if not interpreted(target.backend, target.device):  # the graph is every backend's: one way of compiling it will do
        _compiled(spec, case, target, {})
    _compiled(spec, case, target, {"dynamic": True, "backend": "aot_eager"})


class _Module(torch.nn.Module):
    """A function whose tensor arguments come by position and whose others are bound."""

    def __init__(self, spec: OpSpec, names: tuple[str, ...], constants: Arguments) -> None:
        super().__init__()
        self.run = lambda tensors: spec.function(**constants, **dict(zip(names, tensors, strict=True)))

    def forward(self, *tensors: Any) -> Any:
        return self.run(tensors)


@check
def check_export(spec: OpSpec, case: Case, target: Target) -> None:
    """``torch.export`` of a module that uses the op, sizes dynamic where the case leaves a choice."""
    arguments = {k: _detached(v) for k, v in arguments_for(spec, case, target).items()}
    tensors = {k: v for k, v in arguments.items() if tensors_in(v)}
    module = _Module(spec, tuple(tensors), {k: v for k, v in arguments.items() if k not in tensors})

    def rows(x: torch.Tensor) -> dict[int, Any]:
        return {0: torch.export.Dim.AUTO} if x.shape[0] > 1 else {}  # sizes of 0 and 1 are always constants

    shapes = tuple(rows(v) if isinstance(v, torch.Tensor) else [rows(x) for x in v] for v in tensors.values())
    with warnings.catch_warnings(), target.context():
        warnings.simplefilter("ignore")
        program = torch.export.export(module, tuple(tensors.values()), dynamic_shapes={"tensors": shapes})
    exported = results_of(program.module()(*tensors.values()))
    plain = target.call(spec, arguments)
    require(len(plain) == len(exported) and all(map(identical, plain, exported)), "the exported result differs")


@check
def check_capture(spec: OpSpec, case: Case, target: Target) -> None:
    """On a GPU: forward and backward never wait for the device, and run in a captured CUDA graph."""
    arguments = arguments_for(spec, case, target)

    def step() -> list[torch.Tensor]:
        results = target.call(spec, arguments)
        if not differentiated(results):
            return results
        ones = [torch.ones_like(result) for result in differentiated(results)]
        return [*results, *gradients(spec, arguments, results, ones)]

    wanted = [result.detach().clone() for result in step()]  # compiles what is compiled at the first call
    graph, found = captured(step)
    graph.replay()
    torch.cuda.synchronize()
    require(all(map(identical, found, wanted)), "the captured graph's results differ")


def _detached(value: Any) -> Any:
    return map_tensors(value, torch.Tensor.detach)


@check
def check_error(spec: OpSpec, case: ErrorCase, target: Target) -> None:
    """A bad argument raises ``RuntimeError``, before any kernel, with a message that names the op and the argument."""
    arguments = {k: _to(v, target.device) for k, v in case.make().items()}
    if case.device not in (None, target.device):
        if case.op is not None:
            raise NotApplicable(f"refused on {case.device} only")
        if case.elsewhere == "nan":
            require_nan(spec, arguments, target)
        else:
            target.call(spec, arguments)
        return
    try:
        if case.op is None:
            target.call(spec, arguments)
        else:
            namespace = "structops" if target.backend == "native" else f"structops_{target.backend}"
            getattr(getattr(torch.ops, namespace), case.op)(**arguments)
    except RuntimeError as raised:
        text, op = str(raised), case.op or spec.name
        require(
            op in text and re.search(case.match, text, re.DOTALL) is not None,
            f"the message must name {op} and match {case.match!r}, got: {text}",
        )
    except Exception as raised:
        raise CheckFailure(f"raised {type(raised).__name__}, not RuntimeError: {raised}") from raised
    else:
        raise CheckFailure("was accepted")


def require_nan(spec: OpSpec, arguments: Arguments, target: Target) -> None:
    """What cannot be refused without a host sync is NaN in the result, and passes finite gradients on."""
    for tensor in leaves(spec, arguments).values():
        tensor.requires_grad_()
    results = target.call(spec, arguments)
    require(any(bool(result.isnan().any()) for result in results), "was accepted, and nothing in the result is NaN")
    found = gradients(spec, arguments, results, incoming_gradients(results)) if differentiated(results) else []
    require(all(bool(grad.isfinite().all()) for grad in found), "was accepted, and a gradient is not finite")


def _to(value: Any, device: str) -> Any:
    """On the device under test; what an error case put elsewhere stays there."""
    if isinstance(value, torch.Tensor):
        return value.to(device) if value.device.type == "cpu" else value
    return [_to(v, device) for v in value] if isinstance(value, list) else value
