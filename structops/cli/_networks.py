"""The pretrained networks beside onnxruntime, which runs the files their weights come from; and how long the part took
that is structops'."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from structops.cli._detectors import ROUNDS, now

if TYPE_CHECKING:
    import onnxruntime


@dataclass
class NetworkCheck:
    network: str
    size: tuple[int, int]  # of the network's input
    difference: float  # from onnxruntime, the largest in any map
    seconds: dict[str, float]  # of the upsampling by "torch" and "structops", and of the "whole" network

    #: Rounding alone: scikit-image's pictures give 3e-5, but for one where onnxruntime is 1.3e-4 off from float64
    LIMIT: ClassVar[float] = 1e-3

    @property
    def ok(self) -> bool:
        return self.difference <= self.LIMIT


def session(path: Path) -> onnxruntime.InferenceSession:
    """The network of an ONNX file on the CPU, for any number of pictures of any size."""
    import onnx
    import onnxruntime

    file = onnx.load(str(path))
    constants = {tensor.name for tensor in file.graph.initializer}  # old files list them as inputs, too
    for value in [*file.graph.input, *file.graph.output]:
        for axis, size in enumerate(value.type.tensor_type.shape.dim):
            if axis != 1 and value.name not in constants:
                size.dim_param = f"{value.name}_{axis}"  # CenterFace's file says 10 pictures of 32 x 32
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # it warns of every constant that is listed as an input
    return onnxruntime.InferenceSession(file.SerializeToString(), options, providers=["CPUExecutionProvider"])


def onnx_outputs(path: Path, x: Tensor) -> list[Tensor]:
    run = session(path)
    return [torch.from_numpy(y) for y in run.run(None, {run.get_inputs()[0].name: x.cpu().numpy()})]


@torch.inference_mode()
def check(name: str, model: nn.Module, x: Tensor, path: Path, device: str) -> NetworkCheck:
    """A network on an input, and beside it the ONNX file that its weights are from."""
    # A GPU's TF32 keeps 10 bits of each factor: that is no agreement to look for.
    with _Recorder(model) as upsampling, torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        start = now(device)
        ours = model(x)
        whole = now(device) - start
    ours = [ours] if isinstance(ours, Tensor) else list(ours)
    theirs = onnx_outputs(path, x)
    difference = max((a.cpu() - b).abs().max().item() for a, b in zip(ours, theirs, strict=True))
    height, width = x.shape[2:]
    return NetworkCheck(name, (height, width), difference, {**upsampling.seconds(device), "whole": whole})


class _Recorder:
    """Keeps what a network's upsampling modules are called with, to call them again."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.calls: list[tuple] = []

    def __enter__(self) -> _Recorder:
        from structops.models._upsample import Upsample

        modules = [module for module in self.model.modules() if isinstance(module, Upsample)]
        self.hooks = [module.register_forward_pre_hook(self._keep) for module in modules]
        return self

    def _keep(self, module: nn.Module, inputs: tuple) -> None:
        self.calls.append((module, inputs))

    def __exit__(self, *_: object) -> None:
        for hook in self.hooks:
            hook.remove()

    def seconds(self, device: str) -> dict[str, float]:
        """All the calls once more, by turns; the fastest round counts."""
        taken: dict[str, float] = {}
        for _ in range(ROUNDS + 1):
            for who in ("torch", "structops"):
                start = now(device)
                for module, inputs in self.calls:
                    module.in_steps(*inputs) if who == "torch" else module(*inputs)
                taken[who] = min(taken.get(who, float("inf")), now(device) - start)
        return taken
