"""Machine code of the CUDA kernels for sm_90, without a GPU: registers, spills, vector loads, atomics."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from budgets import all_budgets

from structops.bench.gpu_cost.sass import demangle, missing_tools, read

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "csrc").rglob("*.cu"))
BUDGETS = all_budgets()
KERNELS = sorted(BUDGETS)


def _nvcc() -> str | None:
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    return (
        shutil.which("nvcc", path=f"{home}/bin")
        if home
        else shutil.which("nvcc") or shutil.which("/usr/local/cuda/bin/nvcc")
    )


NVCC = _nvcc()
pytestmark = [
    pytest.mark.skipif(NVCC is None, reason="nvcc was not found: kernels cannot be compiled for sm_90 here"),
    pytest.mark.skipif(bool(missing_tools()), reason=f"not found: {', '.join(missing_tools())}"),
]


def _kernel_flags() -> list[str]:
    """The flags that decide machine code, as setup.py gives them to nvcc."""
    strings = {n.value for n in ast.walk(ast.parse((ROOT / "setup.py").read_text())) if isinstance(n, ast.Constant)}
    flags = ["-std=c++20", "-O3", "-fmad=false", "--expt-relaxed-constexpr"]
    assert strings >= set(flags), "setup.py builds the kernels with other flags than these tests"
    return flags


@dataclass
class Kernel:
    registers: int
    stack: int
    spills: int
    sass: list[str]


def _compile(source: Path, folder: Path, flags: list[str]) -> dict[str, Kernel]:
    binary = folder / f"{source.stem}.cubin"
    command = [NVCC, *flags, "-arch=sm_90", f"-I{ROOT / 'csrc'}", "-Xptxas", "-v", "-cubin"]
    done = subprocess.run([*command, str(source), "-o", str(binary)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    usage = re.findall(
        r"Function properties for (\w+)\n"
        r"\s+(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads\n"
        r".*?Used (\d+) registers",
        done.stderr,
    )
    kernels = read(binary)
    short = demangle([entry[0] for entry in usage])
    return {
        short[name]: Kernel(
            int(registers), int(stack), int(stores) + int(loads), [i.text for i in kernels[short[name]].instructions]
        )
        for name, stack, stores, loads, registers in usage
    }


@pytest.fixture(scope="session")
def kernels(tmp_path_factory) -> dict[str, Kernel]:
    folder = tmp_path_factory.mktemp("sass")
    # Read once, not by every thread: Python 3.11's parser counts its recursion in one counter for all
    # threads, and where a finaliser lets another one parse in between, both end in a SystemError.
    flags = _kernel_flags()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found: dict[str, Kernel] = {}
        for some in pool.map(lambda source: _compile(source, folder, flags), SOURCES):
            found |= some
    return found


def test_every_kernel_has_a_budget(kernels):
    assert sorted(kernels) == KERNELS


@pytest.mark.parametrize("name", KERNELS)
def test_registers(kernels, name):
    kernel, budget = kernels[name], BUDGETS[name]
    assert kernel.registers <= budget.registers
    assert kernel.registers > 0.8 * budget.registers - 8, "the budget is far from what is used: tighten it"


@pytest.mark.parametrize("name", KERNELS)
def test_nothing_in_local_memory(kernels, name):
    kernel = kernels[name]
    assert kernel.stack == 0
    assert kernel.spills == 0
    assert not [i for i in kernel.sass if i.startswith(("LDL", "STL"))]


@pytest.mark.parametrize("name", [n for n in KERNELS if BUDGETS[n].wide_loads])
def test_vector_paths_load_16_bytes(kernels, name):
    wide = [i for i in kernels[name].sass if re.match(r"LDG(STS)?\.E\.\S*128", i)]
    assert len(wide) >= BUDGETS[name].wide_loads


@pytest.mark.parametrize("name", [n for n in KERNELS if BUDGETS[n].wide_stores])
def test_vector_paths_store_16_bytes(kernels, name):
    wide = [i for i in kernels[name].sass if re.match(r"STG\.E\.\S*128", i)]
    assert len(wide) >= BUDGETS[name].wide_stores


@pytest.mark.parametrize("name", KERNELS)
def test_memory_spaces_are_known(kernels, name):
    """Generic loads and stores ask which memory a pointer means, every time."""
    assert not [i for i in kernels[name].sass if re.match(r"(LD|ST)\.", i)]


@pytest.mark.parametrize("name", KERNELS)
def test_no_float_atomics(kernels, name):
    """They make a sum depend on the order in which threads arrive."""
    atomics = [i for i in kernels[name].sass if re.match(r"(RED|ATOM)", i)]
    assert not [i for i in atomics if re.search(r"\.F(16|32|64)|\.BF16", i)]


@pytest.mark.parametrize("name", [n for n in KERNELS if BUDGETS[n].has or BUDGETS[n].lacks])
def test_decisions_are_not_contracted(kernels, name):
    has, lacks = BUDGETS[name].has, BUDGETS[name].lacks
    found = {i.split()[0].split(".")[0] for i in kernels[name].sass}
    assert has is None or has in found
    assert lacks not in found
