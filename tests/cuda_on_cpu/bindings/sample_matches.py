"""sample_matches by the CUDA kernels: what csrc/sample_matches/sample_matches_binding_cuda.cpp does around them."""

from __future__ import annotations

import torch

from structops.testing import Case
from structops.testing.cases.sample_matches import arguments

from ..emulator import Emulator, poisoned

# Two parts of a segment for top_k, and more samples than a block has threads.
EXTRA = {"sample_matches": (Case("two-parts", lambda g: arguments(g, (17000,), num_samples=300)),)}


def sample_matches(
    emulator: Emulator, matches: torch.Tensor, num_samples: int, positive_fraction: float, seed: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    images, anchors = matches.shape if matches.dim() == 2 else (1, len(matches))
    positive = int(num_samples * positive_fraction)
    shape = matches.shape[:-1]
    found = tuple(poisoned(*shape, n, like=matches, dtype=torch.int64) for n in (positive, num_samples, 2))
    if images == 0:
        return found
    parameters = images, anchors, num_samples, positive
    priorities = poisoned(images, 2, anchors, like=matches, dtype=torch.float32)
    emulator.launch("sample_priorities", *parameters, matches.long().contiguous(), seed, priorities)
    top = 1, images, 2, num_samples, 0.0
    layout = torch.tensor([1, 1, anchors, 0, 0, 1, 2 * anchors, anchors])
    size = emulator.launch("top_k_workspace_float32", *top, layout)
    workspace = poisoned(size, like=matches, dtype=torch.uint8)
    best = poisoned(images, 2, num_samples, like=matches, dtype=torch.int32)
    emulator.launch("top_k_float32", *top, priorities, *[None] * 7, layout, workspace, best)
    emulator.launch("sample_choose", *parameters, best, *found)
    return found
