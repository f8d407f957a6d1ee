"""The machine: what it is, how fast it copies and multiplies, and clocks for its devices."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import structops
from structops import _libraries

COPY_BYTES = {"cpu": 256 << 20, "cuda": 1 << 30}  # well past any cache
MATRIX_SIZE = {"cpu": 2048, "cuda": 8192}


class GpuClock:
    """A moment in a GPU's stream. Taking one does not wait; the difference of two does."""

    def __init__(self) -> None:
        self.event = torch.cuda.Event(enable_timing=True)
        self.event.record()

    def __sub__(self, earlier: GpuClock) -> float:
        self.event.synchronize()
        return earlier.event.elapsed_time(self.event) * 1e-3


CLOCKS: dict[str, Callable[[], Any]] = {"cpu": time.perf_counter, "cuda": GpuClock}


def seconds(call: Callable[[], Any], device_type: str) -> tuple[Any, float]:
    """A call's result and the time it took on its device."""
    start = CLOCKS[device_type]()
    result = call()
    return result, CLOCKS[device_type]() - start


def _copy_rate(device: torch.device, repeats: int) -> float:
    source = torch.ones(COPY_BYTES[device.type] // 4, device=device)
    target = torch.empty_like(source)
    target.copy_(source)  # first touch of its pages
    return 2 * source.nbytes / min(seconds(lambda: target.copy_(source), device.type)[1] for _ in range(repeats))


def _matrix_rate(device: torch.device, dtype: torch.dtype, repeats: int) -> float:
    size = MATRIX_SIZE[device.type]
    matrix = torch.ones(size, size, device=device, dtype=dtype)
    products = [(2 * size**3, lambda: matrix @ matrix)]
    if device.type == "cpu":
        # A product by oneDNN too: MKL's takes twice as long on other makers' processors.
        pixels = torch.ones(1, size // 2, 64, 64, dtype=dtype).to(memory_format=torch.channels_last)
        weight = torch.ones(size // 2, size // 2, 1, 1, dtype=dtype)
        flops = 2 * pixels.numel() * len(weight)
        products.append((flops, lambda: torch.nn.functional.conv2d(pixels, weight)))
    best = 0.0
    for flops, product in products:
        product()  # picks and loads the library's kernel
        best = max(best, flops / min(seconds(product, device.type)[1] for _ in range(repeats)))
    return best


def limits(device: torch.device, repeats: int = 8) -> dict[str, float]:
    """Bytes a second of a large copy (read and written) and operations a second of large matrix products.

    The best of several, since another process can only slow them down.
    """
    found = {"bytes": _copy_rate(device, repeats)}
    for dtype in (torch.float32, torch.bfloat16):
        found[_name(dtype)] = _matrix_rate(device, dtype, max(repeats // 2, 2))
    if found["bfloat16"] < found["float32"]:  # without instructions for it, it is computed in float32
        del found["bfloat16"]
    if device.type == "cuda" and "bfloat16" in found:  # tensor cores; on a CPU float16 is computed in float32
        found["float16"] = found["bfloat16"]
    return found


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def floor(cost, dtype: torch.dtype, limits: dict[str, float]) -> tuple[float, str]:
    """The least time that a :class:`~structops.testing.workloads.Cost` can take, and what bounds it."""
    rate = limits.get(_name(dtype), limits["float32"])
    memory, arithmetic = cost.bytes / limits["bytes"], cost.flops / rate
    return max(memory, arithmetic), "memory" if memory >= arithmetic else "arithmetic"


class Caches:
    """Puts a GPU's L2 into a known state, and keeps it busy so that a call's launch costs on the host are hidden.

    The host runs ahead of the GPU during the pause, as it does in a network; without it an event pair around one
    short kernel measures the launch.
    """

    PAUSE_CYCLES = 600_000  # 0.3 ms at 1.8 GHz

    def __init__(self, device: torch.device, state: str) -> None:
        self.buffer = None
        self.cuda = device.type == "cuda"
        if state == "cold":
            size = 4 * torch.cuda.get_device_properties(device).L2_cache_size
            self.buffer = torch.empty(size, dtype=torch.uint8, device=device)

    def prepare(self) -> None:
        if self.buffer is not None:
            self.buffer.zero_()
        if self.cuda:
            torch.cuda._sleep(self.PAUSE_CYCLES)


def processor() -> str:
    """The processor's name as its maker prints it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("model name", "Model")):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _instruction_set() -> str:
    try:
        return _libraries.build_info()["simd"]
    except RuntimeError:  # not built: the reference runs on torch's own kernels
        return torch.backends.cpu.get_cpu_capability().lower()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def describe() -> dict[str, Any]:
    """The machine in a few words: enough to judge a figure by, nothing that names a host or a user."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found: dict[str, Any] = {
        "processor": processor(),
        "cores": cores,
        "instruction set": _instruction_set(),
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "structops": structops.__version__,
        "torch": torch.__version__,
        "torchvision": _version("torchvision"),
        "triton": _version("triton"),
    }
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
        found["cuda"] = torch.version.cuda or torch.version.hip
    return found
