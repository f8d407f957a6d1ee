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
LARGE = 2**23  # output elements: from here on torch's fresh memory decides, of small pages
LARGE_PLANE = 2**16  # output pixels


def _multiplies_tiles() -> bool:
    """Whether oneDNN has matrix instructions for bfloat16 here (AMX)."""
    return bool(getattr(torch.cpu, "_is_amx_tile_supported", lambda: True)())


def _faster(input: torch.Tensor, weight: torch.Tensor, stride: Sequence[int], groups: int) -> bool:
    """Whether structops' kernel beats torch's, as measured on an AMD EPYC with AVX-512 BF16 and, for bfloat16 with AMX,
    on an Intel Xeon.

    Times as fast as torch, from 16 to 256 channels (depthwise: 3 to 256) and 16 x 16 to 128 x 128 pixels, in single
    runs: float16 4 to 150, float64 0.5 (the smallest) to 18. Dense float32 with a kernel that is a multiple of its
    stride, or less than twice it (3 x 3, stride 2), 0.8 to 9 in NCHW; in NHWC 1.0 to 2.1 for such multiples where more
    than one tap meets in an output, else 0.6 to 1.4, and for the others 1.1 to 1.6 from 128 channels on, before 0.5 to
    1.6. Dense bfloat16 without AMX: multiples 1.2 to 8 in NCHW and 0.5 to 2.4 in NHWC, other kernels 0.3 to 1.2. With
    AMX torch is faster for multiples, and other kernels are 3 to 19. Depthwise bfloat16 with a stride 1.5 to 68;
    float32 1.0 to 7 for large planes in NCHW, 1.6 to 42 of 3 channels, 0.3 to 1.2 otherwise, and in NHWC 0.4 to 1.5
    unless it is large, then 3 to 4 (depthwise kernels have become up to twice as fast since). Everything on a GPU,
    where nothing was measured, is left to torch.
    """
    height, width = input.shape[2] * stride[0], input.shape[3] * stride[1]  # of the output, about
    elements = input.shape[0] * weight.shape[1] * groups * height * width
    if input.device.type != "cpu" or elements < SMALLEST:
        return False
    dtype, last = lowered("cpu", input.dtype), not input.is_contiguous()
    if dtype in (torch.float16, torch.float64):
        return True
    kernel, strided = weight.shape[2:], min(stride) > 1
    multiple = all(k % s == 0 for k, s in zip(kernel, stride, strict=True))
    if dtype == torch.bfloat16:
        if groups > 1 or not strided:
            return strided
        return not multiple if _multiplies_tiles() else multiple and (not last or min(stride) >= 8)
    if groups > 1:
        few_or_large = groups <= 4 or height * width >= LARGE_PLANE
        return groups == weight.shape[0] and (elements >= LARGE if last else few_or_large)
    if not strided or elements >= LARGE:
        return strided
    overlapping = all(s < k for k, s in zip(kernel, stride, strict=True))
    between = all(s < k < 2 * s for k, s in zip(kernel, stride, strict=True))
    if not last:
        return multiple or between
    channels = weight.shape[1]
    return (multiple and overlapping and (channels >= 32 or min(stride) >= 4)) or (between and channels >= 128)


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
