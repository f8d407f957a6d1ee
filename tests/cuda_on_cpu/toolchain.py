"""Builds the emulator and the kernels with g++, in three flavours, by ninja.

========  =================================================================  ==============================
flavour   how the kernels are compiled                                       what it finds
========  =================================================================  ==============================
plain     no instrumentation; shared memory filled with NaN before a block   numbers, dependence on the
                                                                             order of threads
asan      ``-fsanitize=address,undefined``; red zones round shared arrays,   out of bounds, misaligned,
          dynamic shared memory and every buffer                             overflow, bad conversions
race      ``-fsanitize=thread``, with hooks of our own                       races, uninitialised reads
========  =================================================================  ==============================

Object files stay under ``build/cuda_on_cpu`` and ninja makes only what changed.
"""

from __future__ import annotations

import fcntl
import functools
import os
import shutil
import subprocess
import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).parent.resolve()
ROOT = HERE.parent.parent
EMULATOR = HERE / "emulator"
BUILD = ROOT / "build" / "cuda_on_cpu"
FLAVOURS = ("plain", "asan", "race")
MODULE = BUILD / f"_cuda_on_cpu{sysconfig.get_config_var('EXT_SUFFIX')}"

# -fno-strict-aliasing: kernels read memory as vectors, which nvcc allows. -ffp-contract=off: an
# operation rounds once, as the product's own flags say.
_COMMON = "-std=c++20 -g1 -fPIC -fvisibility=hidden -fno-strict-aliasing -ffp-contract=off"
_COMMON += " -Wall -Wno-unknown-pragmas -fmax-errors=5"
_KERNEL = {
    "plain": "-O1 -DCUDA_ON_CPU_SHARED_IN_TLS",
    "asan": "-O1 -fsanitize=address,undefined,float-cast-overflow -fno-sanitize=vptr -fno-sanitize-recover=all",
    "race": "-O1 -DCUDA_ON_CPU_SHARED_IN_TLS -fsanitize=thread",
}
# The runtime is not instrumented for races (its own accesses are no kernel's), so plain and race share it.
_RUNTIME = {"uninstrumented": "-O2 -DCUDA_ON_CPU_SHARED_IN_TLS", "asan": "-O2 -fsanitize=address"}
_LINK = {"plain": "", "asan": "-fsanitize=address,undefined", "race": ""}


class Unavailable(RuntimeError):
    """Something that the emulator needs is not installed; the message says what."""


class BuildError(RuntimeError):
    """A kernel or the emulator did not compile; the message is the compiler's."""


def compiler() -> str:
    found = shutil.which("g++")
    if found is None:
        raise Unavailable("g++ was not found")
    return found


def cuda_header_folders() -> list[Path]:
    """Folders with CUDA's headers: a toolkit's, then PyPI's nvidia-cuda-runtime, which a CUDA build of torch brings."""
    candidates = [Path(os.environ[name]) / "include" for name in ("CUDA_HOME", "CUDA_PATH") if name in os.environ]
    nvcc = shutil.which("nvcc")
    if nvcc is not None:
        candidates.append(Path(nvcc).resolve().parent.parent / "include")
    candidates.append(Path("/usr/local/cuda/include"))
    package = find_spec("nvidia")
    for folder in package.submodule_search_locations or () if package is not None else ():
        candidates += sorted(Path(folder).glob("cu[0-9]*/include"), reverse=True)
        candidates.append(Path(folder) / "cuda_runtime" / "include")  # CUDA 12
    needed = ("cuda_runtime.h", "cuda_fp16.h", "cuda_bf16.h")
    return [c for c in dict.fromkeys(candidates) if all((c / name).is_file() for name in needed)]


@functools.cache
def unavailable() -> str | None:
    """Why nothing can be emulated here; ``None`` when it can."""
    if not sys.platform.startswith("linux") or os.uname().machine != "x86_64":
        return "the fiber switch is written for x86-64 Linux"
    for tool in ("g++", "ninja"):
        if shutil.which(tool) is None:
            return f"{tool} was not found"
    if find_spec("pybind11") is None:
        return "the pybind11 package is not installed"
    if not cuda_header_folders():
        return (
            "no CUDA headers: neither a toolkit nor the nvidia-cuda-runtime package (pip install nvidia-cuda-runtime)"
        )
    return None


def library_path(name: str, flavour: str) -> Path:
    return BUILD / f"{name}-{flavour}.so"


def libraries() -> dict[str, list[Path]]:
    """Kernel files of each library: the product's, and the harness's own test kernels."""
    return {"product": sorted((ROOT / "csrc").glob("**/*.cu")), "harness": sorted((HERE / "harness").glob("*.cu"))}


def sanitizer_preload() -> str:
    """What LD_PRELOAD must hold for a process that loads the asan flavour."""
    names = ("libasan.so", "libubsan.so")
    found = [subprocess.check_output([compiler(), f"-print-file-name={n}"], text=True).strip() for n in names]
    return ":".join(found)


def include_flags(cuda: Path) -> str:
    folders = [EMULATOR / "include", EMULATOR, ROOT / "csrc"]
    return " ".join([*(f"-I{f}" for f in folders), f"-isystem {cuda}"])


def _ninja_file() -> str:
    import pybind11

    includes = include_flags(cuda_header_folders()[0])
    python = f"-isystem {sysconfig.get_paths()['include']} -isystem {pybind11.get_include()}"
    lines = [
        f"cxx = {compiler()}",
        "rule cxx",
        f"  command = $cxx -MMD -MF $out.d {_COMMON} {includes} $flags -c $in -o $out",
        "  depfile = $out.d",
        "  deps = gcc",
        "  description = $out",
        "rule link",
        "  command = $cxx -shared -o $out $in $flags",
        "  description = $out",
    ]

    def object_file(folder: str, source: Path, flags: str) -> str:
        target = f"{folder}/{source.name}.o"
        lines.extend([f"build {target}: cxx {source}", f"  flags = {flags}"])
        return target

    runtime = {
        kind: {s.stem: object_file(f"runtime-{kind}", s, flags) for s in sorted((EMULATOR / "src").glob("*.cpp"))}
        for kind, flags in _RUNTIME.items()
    }
    # The lists of launchers hold no device code, so one object serves every flavour.
    bindings = [
        object_file("bindings", s, "-O0 -include cuda_on_cpu.h") for s in sorted((HERE / "bindings").glob("*.cpp"))
    ]
    for flavour in FLAVOURS:
        parts = runtime["asan" if flavour == "asan" else "uninstrumented"]
        shared = [o for stem, o in parts.items() if flavour == "race" or stem != "tsan_hooks"]
        for name, sources in libraries().items():
            flags = f"-x c++ -include cuda_on_cpu.h {_KERNEL[flavour]}"
            objects = [object_file(f"{flavour}/{name}", source, flags) for source in sources]
            objects += bindings if name == "product" else []
            target = library_path(name, flavour).name
            lines.extend([f"build {target}: link {' '.join(objects + shared)}", f"  flags = {_LINK[flavour]}"])
    module = object_file("module", EMULATOR / "module.cpp", f"-O1 {python}")
    lines.extend([f"build {MODULE.name}: link {module}", "  flags = -ldl"])
    return "\n".join(lines) + "\n"


def build(name: str, flavours: tuple[str, ...] = FLAVOURS) -> dict[str, Path]:
    """Library ``name`` in each flavour, up to date.

    Raises:
        Unavailable: a tool or the CUDA headers are missing.
        BuildError: something did not compile.
    """
    problem = unavailable()
    if problem is not None:
        raise Unavailable(problem)
    BUILD.mkdir(parents=True, exist_ok=True)
    with open(BUILD / "lock", "w") as lock:  # ninja does not guard against another of itself
        fcntl.flock(lock, fcntl.LOCK_EX)
        file, text = BUILD / "build.ninja", _ninja_file()
        if not file.is_file() or file.read_text() != text:
            file.write_text(text)
        paths = {flavour: library_path(name, flavour) for flavour in flavours}
        targets = [MODULE.name, *(p.name for p in paths.values())]
        done = subprocess.run(["ninja", "-C", str(BUILD), *targets], capture_output=True, text=True)
    if done.returncode != 0:
        raise BuildError(done.stdout + done.stderr)
    return paths
