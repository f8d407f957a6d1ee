"""torch: its transposed convolution, where structops' kernel is the faster one.

``torch.nn.functional.conv_transpose2d`` is replaced, which is what ``torch.nn.ConvTranspose2d`` and most models call.
Results are torch's but for rounding, with torch's types and strides. Whatever looks at a call instead of running it is
given torch's own function: compilers, TorchScript, ``torch.jit.trace``, torch.fx, ``torch.func``, dispatch modes,
subclasses of tensors; so is what structops would refuse, which torch then refuses in its own words.
"""

from __future__ import annotations

import functools
import sys
import warnings
from collections.abc import Callable, Sequence

import torch
from torch.autograd import forward_ad
from torch.jit import _builtins
from torch.nn import functional

from structops import ops
from structops._backend import current_backend, unusable
from structops.ops.conv_transpose2d import lowered

_torch_conv_transpose2d = functional.conv_transpose2d  # when this is first imported, which is before any patch
NAME = "conv_transpose2d"
SMALLEST = 2**14  # output elements: below, the call costs more than the kernel (20 us, torch's 6)
LARGE = 2**22  # output elements: from here on, in NHWC, memory decides


def _faster(input: torch.Tensor, weight: torch.Tensor, stride: Sequence[int], groups: int) -> bool:
    """Whether structops' kernel beats torch's, as measured on a processor with AVX-512 and AMX.

    Times as fast as torch: float16 2 to 40 and float64 1.4 to 9; depthwise in NHWC 2 to 17, in NCHW 0.1 to 0.8 in
    float32 and 1.3 to 2.4 in bfloat16, both 8 to 11 at stride 8; grouped bfloat16 4 to 33; dense float32 where less
    than four taps meet in an output, 1.2 to 4 in NCHW, and in NHWC 1.4 to 1.9 where more than one meets or the output
    is large, else 0.6 to 0.9. Four taps are 0.8 to 1.5, but 1.1 to 4 at stride 8. Dense bfloat16, for which oneDNN has
    matrix instructions, is left to torch, except kernels that are no multiple of the stride, 3 to 19; so is everything
    on a GPU, where nothing was measured.
    """
    height, width = input.shape[2:]
    elements = input.shape[0] * weight.shape[1] * groups * height * width * stride[0] * stride[1]  # about
    if input.device.type != "cpu" or elements < SMALLEST:
        return False
    dtype, last = lowered("cpu", input.dtype), not input.is_contiguous()
    strided, long_strided = min(stride) > 1, min(stride) >= 8
    if dtype in (torch.float16, torch.float64):
        return True
    kernel = weight.shape[2:]
    if dtype == torch.bfloat16:
        uneven = any(k % s for k, s in zip(kernel, stride, strict=True))
        return (strided and (uneven or groups > 1)) or (last and groups == weight.shape[0])
    if groups > 1:
        return groups == weight.shape[0] and (last or long_strided)
    few_taps = all(k < 2 * s for k, s in zip(kernel, stride, strict=True))
    overlapping = any(k > s for k, s in zip(kernel, stride, strict=True))
    return long_strided or (strided and few_taps and (not last or overlapping or elements >= LARGE))


def _plain(*tensors: torch.Tensor | None) -> bool:
    """Whether these are numbers to compute with, and nobody looks on."""
    return (
        all(t is None or type(t) in (torch.Tensor, torch.nn.Parameter) for t in tensors)
        and not torch.jit.is_tracing()
        and not torch.overrides.has_torch_function(tensors)
        and forward_ad._current_level < 0
        and torch._C._functorch.peek_interpreter_stack() is None
        and torch._C._len_torch_dispatch_stack() == 0
    )


def _same_layout(input: torch.Tensor, weight: torch.Tensor) -> bool:
    """Whether torch's output has the layout of the input: dense, not both layouts at once, nor overruled by weights."""
    contiguous, last = input.is_contiguous(), input.is_contiguous(memory_format=torch.channels_last)
    return contiguous != last and (last or weight.is_contiguous())


def _pair(value: int | Sequence[int]) -> Sequence[int] | None:
    if type(value) is int:
        return (value, value)
    found = tuple(value) if isinstance(value, tuple | list) else ()
    return found * 2 if len(found) == 1 else found if len(found) == 2 else None


def _taken(input, weight, bias, stride, groups) -> bool:
    pair = _pair(stride)
    return (
        _plain(input, weight, bias)
        and input.dim() == weight.dim() == 4
        and input.dtype == weight.dtype
        and (bias is None or bias.dtype == input.dtype)
        and pair is not None
        and type(groups) is int
        and input.numel() > 0
        and not (torch.is_grad_enabled() and any(t.requires_grad for t in (input, weight, bias) if t is not None))
        and _faster(input, weight, pair, groups)
        and _same_layout(input, weight)
    )


@functools.wraps(_torch_conv_transpose2d)
def conv_transpose2d(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    output_padding: int | Sequence[int] = 0,
    groups: int = 1,
    dilation: int | Sequence[int] = 1,
) -> torch.Tensor:
    options = (stride, padding, output_padding, groups, dilation)
    if torch.compiler.is_compiling() or not _taken(input, weight, bias, stride, groups):
        return _torch_conv_transpose2d(input, weight, bias, *options)
    try:
        return ops.conv_transpose2d(input, weight, bias, *options)
    except (RuntimeError, TypeError):
        return _torch_conv_transpose2d(input, weight, bias, *options)


def _rebind(old: Callable[..., object], new: Callable[..., object]) -> None:
    """In torch.nn.functional, and wherever somebody imported it from there by its name."""
    for name, module in list(sys.modules.items()):
        if name == functional.__name__ or name.split(".")[0] not in ("torch", "structops"):
            bound = getattr(module, "__dict__", None)
            if isinstance(bound, dict) and bound.get(NAME) is old:
                bound[NAME] = new


def install() -> Callable[[], None]:
    problem = None if current_backend() == "reference" else unusable("native", "cpu")
    if problem is not None:
        warnings.warn(
            f"structops.patch: torch stays as it is, structops has no fast kernels here: {problem}",
            RuntimeWarning,
            stacklevel=5,
        )
        return lambda: None
    _rebind(_torch_conv_transpose2d, conv_transpose2d)
    _builtins._register_builtin(conv_transpose2d, "aten::conv_transpose2d")  # to TorchScript it is torch's

    def restore() -> None:
        _rebind(conv_transpose2d, _torch_conv_transpose2d)
        _builtins._get_builtin_table().pop(id(conv_transpose2d), None)

    return restore
