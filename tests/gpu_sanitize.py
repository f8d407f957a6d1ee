"""Every op's quick cases once on the GPU, forward and backward: what `make gpu-check` runs under compute-sanitizer.

A sanitizer slows kernels a hundredfold, so this is a short set, and it compares nothing: the tests do.
"""

from __future__ import annotations

import sys

import torch

from structops.testing import Target, specs
from structops.testing.run import arguments_for, gradients, incoming_gradients


def main(device: str) -> None:
    for spec in specs().values():
        for case in spec.tagged("quick", without=("large",)):
            for dtype in (torch.float16, torch.float32):
                target = Target("native", device, dtype)
                arguments = arguments_for(spec, case, target)
                results = target.call(spec, arguments)
                if spec.differentiable:
                    gradients(spec, arguments, results, incoming_gradients(results))
                if device == "cuda":
                    torch.cuda.synchronize()
                print(spec.name, case.name, dtype, *(tuple(result.shape) for result in results))


main(*sys.argv[1:] or ["cuda"])
