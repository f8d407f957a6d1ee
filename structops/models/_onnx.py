"""Weights out of ONNX files that come inside other packages: finding the file, reading it, refusing the wrong one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    import numpy as np
    import onnx


def packaged(package: str, file: str) -> Path | None:
    """A file inside an installed package, which is located but not imported: its dependencies may be missing."""
    spec = find_spec(package)
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        path = Path(folder) / file
        if path.is_file():
            return path
    return None


def load(path: str | os.PathLike[str]) -> onnx.GraphProto:
    import onnx
    from google.protobuf.message import DecodeError

    try:
        return onnx.load(str(path)).graph
    except (DecodeError, onnx.checker.ValidationError) as error:  # or tensors in other files, which are not there
        raise ValueError(f"{path} is not an ONNX file ({error})") from None


def tensors(graph: onnx.GraphProto) -> dict[str, np.ndarray]:
    """The constants that a node uses, by name.

    Raises:
        ValueError: when one has a type that does not exist, or not as many numbers as its shape says.
    """
    import onnx

    used = {name for node in graph.node for name in node.input}
    found = {}
    for tensor in graph.initializer:
        if tensor.name in used:
            try:
                found[tensor.name] = onnx.numpy_helper.to_array(tensor)
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(f"the ONNX file's tensor {tensor.name} cannot be read ({error!r})") from None
    return found


def convolutions(graph: onnx.GraphProto) -> Iterator[tuple[str, str | None]]:
    """The weight and the bias of each convolution, plain or transposed, by their names, in order of execution.

    The bias is an input of the node, or the constant that the next node but Identities adds.
    """
    constants = {t.name for t in graph.initializer}
    computed: dict[str, str] = {}  # the value that an Identity passed on
    added: dict[str, str] = {}  # to a value: a constant
    for node in graph.node:
        if node.op_type == "Identity" and len(node.input) == 1:
            computed[node.output[0]] = computed.get(node.input[0], node.input[0])
        elif node.op_type == "Add" and len(node.input) == 2 and node.input[1] in constants:
            added[computed.get(node.input[0], node.input[0])] = node.input[1]
    for node in graph.node:
        if node.op_type in ("Conv", "ConvTranspose") and len(node.input) > 1:
            weight, *bias = node.input[1:]
            yield weight, bias[0] if bias else added.get(node.output[0])


def fill_in_order(model: nn.Module, graph: onnx.GraphProto, what: str) -> None:
    """Copy the weights of a network of convolutions, which the model registers in the order of execution.

    Raises:
        ValueError: as :func:`fill`, or when the numbers of convolutions differ.
    """
    ours = [(name, m) for name, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    theirs = list(convolutions(graph))
    if len(theirs) != len(ours):
        raise ValueError(f"{what}: it has {len(theirs)} convolutions, not {len(ours)}")
    constants = tensors(graph)
    names, found = {}, {}
    for (name, module), (weight, bias) in zip(ours, theirs, strict=True):
        names[f"{name}.weight"] = weight
        if weight in constants:
            found[weight] = constants[weight]
        if module.bias is not None:
            names[f"{name}.bias"] = bias or f"the bias after {weight}"
        if bias in constants:
            found[bias] = constants[bias].reshape(-1)  # [1, C, 1, 1] where it is a constant that is added
    fill(model, names, found, what)


def fill(model: nn.Module, names: dict[str, str], found: dict[str, np.ndarray], what: str) -> None:
    """Copy the file's tensors into the model.

    Args:
        names: our parameters and buffers, each with its tensor's name in the file.
        found: the file's tensors; all of them must have a place.
        what: how the error begins: "this file is not that network".

    Raises:
        ValueError: when a tensor is missing, unknown or of another shape.
    """
    state = model.state_dict()
    expected = {theirs: state[ours].shape for ours, theirs in names.items()}
    problems = [f"{name} is missing" for name in expected if name not in found]
    problems += [f"{name} is unknown" for name in found if name not in expected]
    problems += [
        f"{name} is {list(found[name].shape)}, not {list(shape)}"
        for name, shape in expected.items()
        if name in found and found[name].shape != tuple(shape)
    ]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise ValueError(f"{what}: {'; '.join(problems[:3])}{more}")
    state = {ours: torch.from_numpy(found[theirs].copy()) for ours, theirs in names.items()}
    model.load_state_dict(state, strict=False)  # num_batches_tracked is not in the files
