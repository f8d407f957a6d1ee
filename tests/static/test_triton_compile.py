"""Every Triton kernel compiled ahead of time, for GPUs that need not be there.

A kernel file tells what to compile with ``ahead_of_time()``, which yields (name, launch) made by the launchers'
own code on meta tensors. Compilation runs in processes of its own: the rest of the test session may have put Triton in
interpreter mode, which is fixed when it is imported.
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton")

# 12 warps at least on a multiprocessor of 65536 registers.
REGISTER_BUDGET = 168
# One dtype takes every kernel through the other targets' compilers, and only one launch of each kernel through sm_80's,
# which is sm_90's to its last stage; everything for all of them would double the time.
OTHER_TARGETS = ("sm_80", "gfx942")
OTHER_DTYPE = "bfloat16"
# Differs from bfloat16 in conversions only.
LEFT_OUT = re.compile(r"\bfloat16")
# What must read channels_last features (or gradients) 16 bytes at a time, in some launch at least; those that say so in
# the launch are looked at one by one.
VECTOR_KERNELS = {
    "multiscale_forward_kernel",
    "roi_align_backward_kernel",
    "roi_align_forward_kernel",
    "roi_align_rotated_forward_kernel",
    "roi_pool_backward_kernel",
    "roi_pool_forward_kernel",
}


def _modules():
    import structops.triton_kernels as package

    return [importlib.import_module(f"{package.__name__}.{m.name}") for m in pkgutil.iter_modules(package.__path__)]


def _kernels(module) -> set[str]:
    """Names of the launchable kernels that a file defines; by convention ``*_kernel``."""
    return {name for name in vars(module) if name.endswith("_kernel")}


def _source(launch):
    """What Triton's own launcher would compile for these arguments, pointers aligned as torch aligns them."""
    from triton.compiler import ASTSource

    types = {
        torch.float16: "fp16",
        torch.bfloat16: "bf16",
        torch.float32: "fp32",
        torch.float64: "fp64",
        torch.uint8: "u8",
        torch.int8: "i8",
        torch.int32: "i32",
        torch.int64: "i64",
    }
    signature, constants, attributes = {}, {}, {}
    for parameter in launch.kernel.params:
        name, value = parameter.name, launch.arguments[parameter.name]
        one = type(value) is int and value == 1 and not parameter.do_not_specialize
        if parameter.is_constexpr or value is None or one:
            signature[name], constants[name] = "constexpr", value
            continue
        if isinstance(value, torch.Tensor):
            signature[name] = "*" + types[value.dtype]
            aligned = True
        else:
            assert type(value) is int, f"{launch.kernel.__name__}: {name} is a {type(value).__name__}"
            signature[name] = "i32" if -(2**31) <= value < 2**31 else "i64"
            aligned = value % 16 == 0 and not parameter.do_not_specialize
        if aligned:
            attributes[(parameter.num,)] = [["tt.divisibility", 16]]
    return ASTSource(launch.kernel, signature, constants, attributes)


def _inspect(cubin: bytes) -> dict:
    """Registers, stack and memory instructions of compiled code."""
    import triton

    tools = Path(triton.__file__).parent / "backends/nvidia/bin"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        usage = subprocess.run(
            [tools / "cuobjdump", "--dump-resource-usage", file.name], capture_output=True, text=True, check=True
        ).stdout
        sass = subprocess.run([tools / "nvdisasm", "-c", file.name], capture_output=True, text=True, check=True).stdout
    resources = {name: int(value) for name, value in re.findall(r"\b(REG|STACK|LOCAL):(\d+)", usage)}
    return {
        "registers": resources["REG"],
        "stack": resources["STACK"] + resources["LOCAL"],
        "local": len(re.findall(r"\b(?:LDL|STL)\b", sass)),
        "loads16": len(re.findall(r"\bLDG\.[A-Z0-9.]*128\b", sass)),
    }


def _variants() -> list[tuple[str, str, object]]:
    """(name, target, launch) of everything to compile, without duplicates."""
    variants, seen = {}, set()
    for module in _modules():
        for name, launch in getattr(module, "ahead_of_time", lambda: ())():
            if LEFT_OUT.search(name):
                continue
            targets = ["sm_90"]
            if OTHER_DTYPE in name:
                targets += [t for t in OTHER_TARGETS if t != "sm_80" or launch.kernel not in seen]
                seen.add(launch.kernel)
            for target in targets:
                key = (target, _source(launch).hash(), tuple(launch.options.items()))
                variants.setdefault(key, (name, target, launch))
    return list(variants.values())


def _compile(variant: tuple[str, str, object]) -> dict:
    import triton
    from triton.backends.compiler import GPUTarget

    name, target, launch = variant
    result = {"kernel": launch.kernel.__name__, "name": name, "target": target, "error": None}
    cuda = target.startswith("sm_")
    gpu = GPUTarget("cuda", int(target[3:]), 32) if cuda else GPUTarget("hip", target, 64)
    try:
        compiled = triton.compile(_source(launch), target=gpu, options=dict(launch.options))
    except Exception as error:  # whatever the compiler raises is the test's message
        return result | {"error": f"{type(error).__name__}: {error}"}
    if target == "sm_90":
        result |= {"vector_loads": launch.vector_loads, **_inspect(compiled.asm["cubin"])}
    return result


def _compile_share(share: int, shares: int) -> list[dict]:
    return [_compile(variant) for variant in _variants()[share::shares]]


@pytest.fixture(scope="module")
def compiled() -> list[dict]:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    shares = min(os.cpu_count() or 1, 8)
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, str(share), str(shares)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for share in range(shares)
    ]
    results = []
    for process in processes:
        out, err = process.communicate()
        assert process.returncode == 0, err[-4000:]
        results += json.loads(out)
    return results


def _label(result: dict) -> str:
    return f"{result['kernel']} ({result['name']}, {result['target']})"


def test_every_kernel_compiles_for_every_target(compiled):
    errors = {_label(r): r["error"] for r in compiled if r["error"]}
    assert not errors
    found = set().union(*(_kernels(module) for module in _modules()))
    assert found, "no kernels found"
    for target in ("sm_90", *OTHER_TARGETS):
        missing = found - {r["kernel"] for r in compiled if r["target"] == target}
        assert not missing, f"not in any ahead_of_time(): {missing}"


def test_kernels_are_named_by_convention():
    """So that none escapes this file: what is launched ends in ``_kernel``, what is only called starts with ``_``."""
    from triton.runtime import JITFunction
    from triton.runtime.interpreter import InterpretedFunction

    for module in _modules():
        for name, value in vars(module).items():
            if isinstance(value, JITFunction | InterpretedFunction):
                assert name.endswith("_kernel") or name.startswith("_"), f"{module.__name__}.{name}"


def test_no_local_memory_and_registers_within_budget(compiled):
    native = [r for r in compiled if r["target"] == "sm_90"]
    assert native
    spilled = [_label(r) for r in native if r["stack"] or r["local"]]
    assert not spilled
    greedy = {_label(r): r["registers"] for r in native if r["registers"] > REGISTER_BUDGET}
    assert not greedy


def test_channels_last_reads_16_bytes_at_a_time(compiled):
    vector = [r for r in compiled if r.get("vector_loads")]
    missing = VECTOR_KERNELS - {r["kernel"] for r in vector}
    assert not missing, "no launch of these is said to read vectors any more"
    scalar = [_label(r) for r in vector if not r["loads16"]]
    assert not scalar


if __name__ == "__main__":
    json.dump(_compile_share(*map(int, sys.argv[1:])), sys.stdout)
