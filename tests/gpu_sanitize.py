"""Every op's quick cases once on the GPU, forward and backward: what `make gpu-check` runs under compute-sanitizer.

A sanitizer slows kernels a hundredfold, so this is a short set, and it compares nothing: the tests do.
"""

from __future__ import annotations

import torch

from structops.testing.spec import specs

for spec in specs().values():
    for case in spec.tagged("quick", without=("large",)):
        for dtype in (torch.float16, torch.float32):
            arguments = case.make(torch.Generator().manual_seed(0))
            for name, value in arguments.items():
                if isinstance(value, torch.Tensor):
                    to = dtype if name in spec.data else (torch.float32 if value.is_floating_point() else value.dtype)
                    arguments[name] = value.to("cuda", to)
                elif isinstance(value, list):
                    arguments[name] = [v.to("cuda", torch.float32) for v in value]
            for name in spec.differentiable:
                arguments[name].requires_grad_()
            output = spec.function(**arguments)
            if spec.differentiable and output.numel():
                output.sum().backward()
            torch.cuda.synchronize()
            print(spec.name, case.name, dtype, tuple(output.shape))
