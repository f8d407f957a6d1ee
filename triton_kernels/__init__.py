"""Triton kernels, one file per op; installed as ``structops.triton_kernels``."""

if __name__ != "structops.triton_kernels":
    raise ImportError(
        "this folder is the package structops.triton_kernels; install structops and import it by that name "
        "(a top-level triton_kernels belongs to another project)"
    )
