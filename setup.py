"""Build script: globs csrc/, knows flags, knows no op by name.

Environment:
    STRUCTOPS_CUDA        0: never build the CUDA library; 1: build it or fail; unset: build it
                          where nvcc and a CUDA build of torch are both found.
    TORCH_CUDA_ARCH_LIST  as torch understands it; default "8.0;9.0+PTX".
    STRUCTOPS_DEBUG       1: -O0 -g instead of -O3.
    STRUCTOPS_PYTHON_ONLY 1: install without the libraries; `setup.py build_ext --inplace` then builds them, only
                          what changed each time (an editable install by pip alone compiles everything anew).
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).parent.resolve()
MINIMUM_TORCH = (2, 10)
TORCH_TARGET_VERSION = "0x020a000000000000"  # 2.10: one wheel serves it and every later torch


def fail(sentence: str) -> None:
    sys.exit(f"structops: {sentence}")


def find_nvcc() -> Path | None:
    """nvcc with links resolved: a link or a wrapper in /usr/local/bin makes torch guess a wrong CUDA_HOME."""
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    candidates = [Path(home) / "bin" / "nvcc"] if home else []
    found = shutil.which("nvcc")
    if found:
        candidates.append(Path(found).resolve())
    candidates.append(Path("/usr/local/cuda/bin/nvcc").resolve())
    for nvcc in candidates:
        if nvcc.is_file() and (nvcc.parent.parent / "include" / "cuda_runtime.h").is_file():
            return nvcc
    return None


def import_torch():
    try:
        import torch
    except ImportError:
        fail("building needs torch >= 2.10 here: pip install torch, then pip install --no-build-isolation .")
    version = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    if version < MINIMUM_TORCH:
        fail(f"torch {torch.__version__} is not supported; torch >= 2.10 is.")
    return torch


def want_cuda(torch) -> bool:
    choice = os.environ.get("STRUCTOPS_CUDA", "auto")
    if choice not in ("0", "1", "auto", ""):
        fail(f"STRUCTOPS_CUDA must be 0, 1 or unset, not {choice!r}.")
    if choice == "0":
        return False
    problem = None
    nvcc = find_nvcc()
    if nvcc is None:
        problem = "nvcc was not found (set CUDA_HOME)"
    elif torch.version.cuda is None:
        problem = f"torch {torch.__version__} was built without CUDA"
    if problem and choice == "1":
        fail(f"STRUCTOPS_CUDA=1, but {problem}.")
    if problem is None:
        os.environ["CUDA_HOME"] = str(nvcc.parent.parent)
    return problem is None


def extensions():
    torch = import_torch()
    cuda = want_cuda(torch)  # before cpp_extension is imported: it reads CUDA_HOME at import
    compiler = os.environ.get("CXX", "c++")
    if shutil.which(compiler.split()[0]) is None and shutil.which("g++") is None:
        fail(f"a C++20 compiler is needed and {compiler!r} was not found (install g++ or set CXX).")
    os.environ.setdefault("TORCH_CUDA_ARCH_LIST", "8.0;9.0+PTX")
    from torch.utils.cpp_extension import CppExtension

    def sources(*patterns: str, without: str = "/") -> list[str]:
        paths = {p for pattern in patterns for p in (ROOT / "csrc").glob(pattern)}
        return sorted(str(p.relative_to(ROOT)) for p in paths if not p.name.endswith(without))

    optimise = ["-O0", "-g"] if os.environ.get("STRUCTOPS_DEBUG") == "1" else ["-O3"]
    defines = [f"-DTORCH_TARGET_VERSION={TORCH_TARGET_VERSION}"]  # torch's build adds Py_LIMITED_API
    # No contraction: IoU must round like the peers' on every instruction set; kernels that want an
    # fma write one. No psABI notes: wide vector types never cross a real call.
    host = [
        "-std=c++20",
        "-g0",
        *optimise,
        "-fvisibility=hidden",
        "-ffp-contract=off",
        "-Wall",
        "-Wno-psabi",
        *defines,
    ]
    common = dict(include_dirs=[str(ROOT / "csrc")], py_limited_api=True)
    headers = [str(p.relative_to(ROOT)) for p in sorted((ROOT / "csrc").rglob("*.h*"))]
    headers += [str(p.relative_to(ROOT)) for p in sorted((ROOT / "csrc").rglob("*.cuh"))]
    built = [
        CppExtension(
            "structops._C",
            sources("**/*.cpp", without="_cuda.cpp"),
            extra_compile_args={"cxx": host},
            depends=headers,
            **common,
        )
    ]
    if cuda:
        from torch.utils import cpp_extension

        built.append(
            CppExtension(
                "structops._C_cuda",
                sources("**/*_cuda.cpp", "**/*.cu"),
                extra_compile_args={
                    "cxx": [*host, "-DUSE_CUDA"],
                    "nvcc": [
                        "-std=c++20",
                        *optimise,
                        "-DUSE_CUDA",
                        "--expt-relaxed-constexpr",
                        "-fmad=false",  # as -ffp-contract=off above; sums that want an fma say so
                        "-lineinfo",
                        "-Xcompiler=-fvisibility=hidden",
                        *defines,
                    ],
                },
                # The static runtime: the wheel then asks for no particular libcudart.
                libraries=["torch_cuda", "cudart_static", "rt", "dl", "pthread"],
                library_dirs=[str(Path(cpp_extension.CUDA_HOME) / "lib64")],
                depends=headers,
                include_dirs=[*common["include_dirs"], str(Path(cpp_extension.CUDA_HOME) / "include")],
                py_limited_api=True,
            )
        )
    return built


def main() -> None:
    from setuptools import find_packages, setup

    metadata_only = {"egg_info", "dist_info", "sdist", "clean", "--version", "--name"} & set(sys.argv)
    python_only = os.environ.get("STRUCTOPS_PYTHON_ONLY") == "1"
    options = {}
    if not metadata_only and not python_only:
        options["ext_modules"] = extensions()
        from torch.utils.cpp_extension import BuildExtension

        options["cmdclass"] = {"build_ext": BuildExtension.with_options(use_ninja=shutil.which("ninja") is not None)}
    packages = find_packages(include=["structops", "structops.*"])
    setup(
        # The folders triton_kernels/ and benchmarks/ are installed under structops: a top-level
        # package of either name would collide with other projects'.
        packages=[*packages, "structops.triton_kernels", "structops.benchmarks"],
        package_dir={"structops.triton_kernels": "triton_kernels", "structops.benchmarks": "benchmarks"},
        options={"bdist_wheel": {"py_limited_api": "cp310"}},
        zip_safe=False,
        **options,
    )


main()
