"""Loads the compiled libraries and remembers why one is missing."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch

# Library name -> why it is not loaded; None when it is.
problems: dict[str, str | None] = {}


def _load(name: str) -> str | None:
    path = Path(__file__).parent / f"{name}.abi3.so"
    if not path.is_file():
        return "not built"
    try:
        torch.ops.load_library(path)
    except OSError as error:
        return str(error)
    return None


def load() -> None:
    problems["_C"] = _load("_C")
    if problems["_C"] is not None:
        problems["_C_cuda"] = "needs _C, which is not loaded"
    elif torch.version.cuda is None:
        problems["_C_cuda"] = f"torch {torch.__version__} was built without CUDA"
    else:
        problems["_C_cuda"] = _load("_C_cuda")
    problems["triton"] = None if find_spec("triton") is not None else "the triton package is not installed"


def loaded(name: str) -> bool:
    return problems[name] is None


load()


def build_info() -> dict[str, str]:
    """How ``_C`` was built, and under ``"simd"`` the instruction set that its CPU kernels use here.

    Raises:
        RuntimeError: when ``_C`` is not loaded, or ``STRUCTOPS_SIMD`` names no instruction set.
    """
    if not loaded("_C"):
        raise RuntimeError("_C is not built")
    return dict(line.split("=", 1) for line in torch.ops.structops._build_info().splitlines())
