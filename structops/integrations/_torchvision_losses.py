"""torchvision's sigmoid focal loss, which RetinaNet and FCOS train on."""

from __future__ import annotations

import math

import torch
from torch.autograd import forward_ad
from torchvision.ops import focal_loss

from structops import ops
from structops._checks import FLOATING
from structops.integrations._torchvision_devices import patched

# Captured when this module is first imported, which is before the first patch.
_torchvision_sigmoid_focal_loss = focal_loss.sigmoid_focal_loss


def sigmoid_focal_loss(
    inputs: torch.Tensor,
    targets: torch.Tensor,
    alpha: float = 0.25,
    gamma: float = 2,
    reduction: str = "none",
) -> torch.Tensor:
    """``torchvision.ops.sigmoid_focal_loss`` in one pass over memory in each direction.

    Args:
        inputs: logits.
        targets: of the shape of ``inputs``, from 0 to 1.
        alpha: weight of positives, or -1.
        gamma: exponent of the modulating factor.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.

    Returns:
        the loss, reduced or not.
    """
    # Scripted and traced models are often saved: they get torchvision's own code.
    if torch.jit.is_scripting():
        return _torchvision_sigmoid_focal_loss(inputs, targets, alpha, gamma, reduction)
    else:
        if torch.jit.is_tracing() or not _differentiable(inputs, targets, alpha, gamma, reduction):
            return _torchvision_sigmoid_focal_loss(inputs, targets, alpha, gamma, reduction)
        dtype = torch.promote_types(inputs.dtype, targets.dtype)
        if torch.is_autocast_enabled(inputs.device.type):  # under it the cross entropy runs in float32
            dtype = torch.promote_types(dtype, torch.float32)
        return ops.sigmoid_focal_loss(inputs.to(dtype), targets.to(dtype), alpha, gamma, reduction)


def _differentiable(inputs, targets, alpha, gamma, reduction) -> bool:
    """Whether structops gives what torchvision would: the rest, errors included, is left to torchvision."""
    return (
        patched(inputs.device)
        and targets.device == inputs.device
        and inputs.dtype in FLOATING
        and targets.dtype in FLOATING
        and inputs.shape == targets.shape
        and (0 <= alpha <= 1 or alpha == -1)
        and 0 <= gamma < math.inf
        and reduction in ("none", "mean", "sum")
        and (_dense(inputs, targets) or reduction != "none")
        and not _transformed(inputs, targets)
    )


def _dense(*tensors: torch.Tensor) -> bool:
    """Laid out so that the result's strides are torchvision's."""
    return all(t.is_contiguous() for t in tensors) or all(
        t.dim() == 4 and t.is_contiguous(memory_format=torch.channels_last) for t in tensors
    )


def _transformed(*tensors: torch.Tensor) -> bool:
    """Whether something other than plain autograd looks on, which the ops know nothing of: subclasses of tensors,
    forward-mode derivatives, ``torch.func``."""
    if torch.compiler.is_compiling():
        return False
    return (
        torch.overrides.has_torch_function(tensors)
        or forward_ad._current_level >= 0
        or torch._C._functorch.peek_interpreter_stack() is not None
    )


FUNCTIONS = ((_torchvision_sigmoid_focal_loss, sigmoid_focal_loss),)
