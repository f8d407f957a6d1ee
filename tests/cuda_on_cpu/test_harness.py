"""Tests of the emulator itself: every planted bug is found where it should be, and clean kernels are clean.

The table is exact: a flavour that begins or ceases to find a bug fails its test, so no check can rot unseen.
"""

from __future__ import annotations

import re
import subprocess

import pytest
import torch

from . import toolchain
from .emulator import ORDERS, Emulator, KernelError, poisoned

RIGHT, WRONG = "right values", "wrong values"
EVERYWHERE = ("forward", "reverse", "random", "asan", "race")
DEADLOCK = r"deadlock: 30 thread\(s\) in __syncthreads at .*; 31 thread\(s\) in a warp collective"
RACE = r"(write/read|read/write|write/write) race in shared memory: block 0 thread \d+ \[.*planted_bugs.cu:\d+\] and"

UNINITIALISED = r"read of uninitialised data in shared memory: block 0 thread \d+ \[.*planted_bugs.cu:\d+"


def found(forward=RIGHT, reverse=RIGHT, random=RIGHT, asan=RIGHT, race=RIGHT) -> dict[str, str]:
    """What each order of the plain flavour, and the other two in forward order, must give."""
    return {"forward": forward, "reverse": reverse, "random": random, "asan": asan, "race": race}


def always(report: str) -> dict[str, str]:
    return dict.fromkeys(EVERYWHERE, report)


CLEAN = (
    "clean_barrier",
    "clean_early_exit",
    "clean_vector_load",
    "clean_atomics",
    "clean_syncwarp",
    "clean_block_reduce",
)
# Kernel -> RIGHT, WRONG (no report, but the result shows it), or a pattern of the report. WRONG under asan where a
# result depends on what shared memory holds: that flavour cannot fill it with NaN.
BUGS = {
    "missing_barrier": found(WRONG, WRONG, WRONG, WRONG, UNINITIALISED + r"[\s\S]*" + RACE),
    "missing_barrier_hidden_by_forward": found(RIGHT, WRONG, WRONG, RIGHT, RACE),
    "missing_barrier_hidden_by_reverse": found(WRONG, RIGHT, WRONG, WRONG, UNINITIALISED),
    "missing_barrier_before_reuse": found(WRONG, WRONG, WRONG, WRONG, RACE),
    "missing_syncwarp": found(race=RACE),
    "syncwarp_of_the_wrong_lanes": found(random=WRONG, race=RACE),
    "block_reduce_storage_reused": found(reverse=WRONG, random=WRONG, race="read/write race in .*block_reduce.cuh:"),
    "race_with_an_atomic": found(reverse=WRONG, random=WRONG, race=RACE),
    "race_between_blocks": found(
        reverse=WRONG, random=WRONG, race="write/write race in global memory: block 0 .* and block 1"
    ),
    "uninitialised_shared": found(WRONG, WRONG, WRONG, WRONG, UNINITIALISED),
    "divergent_barrier": always(r"divergent barrier: 32 thread\(s\) in .*; 29 thread\(s\) in"),
    "deadlock": always(DEADLOCK),
    "lane_outside_its_mask": always("the calling lane is not in the mask"),
    "different_collectives": always("lanes of a warp meet in different collectives"),
    "shuffle_from_exited_lane": always(WRONG),
    "write_past_end": found(asan=r"heap-buffer-overflow[\s\S]*WRITE of size 4"),
    "read_past_end": found(asan=r"heap-buffer-overflow[\s\S]*READ of size 4"),
    "read_of_empty": found(*["the process ended with -11"] * 3, "load of null pointer", "the process ended with -11"),
    "shared_overrun": found(asan="insufficient space|global-buffer-overflow"),
    "dynamic_shared_overrun": found(asan=r"heap-buffer-overflow[\s\S]*WRITE of size 4"),
    "local_overrun": found(asan="insufficient space|stack-buffer-overflow"),
    "misaligned_load": found(asan="misaligned address .* requires 16 byte alignment"),
    "signed_overflow": found(asan="signed integer overflow"),
    "float_to_int_overflow": found(asan="outside the range of representable values of type 'int'"),
    "too_many_threads": always("bad block dimensions in the launch of .*clean_early_exit"),
    "too_much_shared": always("more dynamic shared memory asked for than an sm_90 block can have"),
}
ONE_WARP = (
    "clean_syncwarp",
    "missing_syncwarp",
    "syncwarp_of_the_wrong_lanes",
    "clean_block_reduce",
    "block_reduce_storage_reused",
    "shuffle_from_exited_lane",
)


def observed(emulator: Emulator, kernel: str, order: str, seed: int = 0) -> str:
    x = torch.arange(61.0)
    y = poisoned(61, like=x)
    emulator.order, emulator.seed = order, seed
    try:
        emulator.launch(kernel, x, y)
    except KernelError as error:
        return str(error)
    right = torch.equal(y[:32], torch.full((32,), 496.0)) if kernel in ONE_WARP else torch.equal(y, x.flip(0))
    return RIGHT if right else WRONG


def observed_in(emulators: dict[str, Emulator], kernel: str, column: str) -> str:
    if column in ("asan", "race"):
        return observed(emulators[column], kernel, "forward")
    seeds = range(3) if column == "random" else (0,)
    results = [observed(emulators["plain"], kernel, column, seed) for seed in seeds]
    return next((r for r in results if r != RIGHT), RIGHT)


@pytest.mark.parametrize("kernel", CLEAN)
def test_clean_kernel_is_clean_everywhere(harness, kernel):
    assert {c: observed_in(harness, kernel, c) for c in EVERYWHERE} == found()


@pytest.mark.parametrize("kernel", BUGS)
def test_planted_bug_is_found_exactly_where_expected(harness, kernel):
    expected = BUGS[kernel]
    assert any(e != RIGHT for e in expected.values()), "a planted bug that nothing finds"
    for column in EVERYWHERE:
        result, wanted = observed_in(harness, kernel, column), expected[column]
        same = result == wanted or (wanted not in (RIGHT, WRONG) and re.search(wanted, result) is not None)
        assert same, f"{kernel} in {column}: expected {wanted!r}, got {result!r}"


def test_endless_kernel_is_ended(harness):
    emulator = harness["plain"]
    emulator.order, emulator.timeout, before = "forward", 1, emulator.timeout
    try:
        with pytest.raises(KernelError, match="still running after 1 s"):
            emulator.launch("spins_on_another_thread", torch.zeros(61), torch.zeros(61))
    finally:
        emulator.timeout = before
    assert observed(emulator, "clean_barrier", "forward") == RIGHT  # in a fresh process


def test_every_planted_kernel_is_in_the_table(harness):
    observed(harness["plain"], "clean_barrier", "forward")
    other = {"spins_on_another_thread", *INSTRUCTIONS}
    assert set(harness["plain"].names) == {*CLEAN, *BUGS, *other}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.zeros(61),), "takes more than 1 arguments"),
        ((torch.zeros(61), torch.zeros(61), 1), "takes 2 arguments, got 3"),
        ((torch.zeros(61), 3), "argument 1 must be a buffer or None"),
    ],
)
def test_wrong_arguments_are_refused(harness, arguments, message):
    with pytest.raises(ValueError, match=message):
        harness["plain"].launch("clean_barrier", *arguments)


def test_every_source_of_cuda_headers_will_do(tmp_path):
    """A toolkit and the PyPI package are interchangeable, the latter with the small stand-ins for crt/."""
    problem = toolchain.unavailable()
    if problem is not None:
        pytest.skip(problem)
    source = tmp_path / "conversions.cpp"
    source.write_text(
        "int main() { return __half2float(__float2half(1.5f)) != 1.5f ||\n"
        "  __bfloat162float(__float2bfloat16(-3.f)) != -3.f || sizeof(float4) != 16 || alignof(float4) != 16; }\n"
    )
    for folder in toolchain.cuda_header_folders():
        flags = toolchain.include_flags(folder).split()
        program = tmp_path / "conversions"
        command = [toolchain.compiler(), "-std=c++20", *flags, "-include", "cuda_on_cpu.h", str(source)]
        # The runtime is not linked: nothing here launches.
        subprocess.run([*command, "-O1", "-o", str(program), "-Wl,--unresolved-symbols=ignore-all"], check=True)
        subprocess.run([program], check=True)


# Instructions.

INSTRUCTIONS = (
    "warp_functions",
    "large_block",
    "gemm_mma",
    "gemm_mma_without_wait",
    "gemm_wmma",
    "matrix_loads",
    "half_arithmetic_float16",
    "half_arithmetic_bfloat16",
)
flavours = pytest.mark.parametrize("flavour", toolchain.FLAVOURS)


def every_order(emulator: Emulator):
    for order in ORDERS if emulator.flavour == "plain" else ("random",):
        emulator.order = order
        yield emulator


def signed(bits: int) -> int:
    return bits - (1 << 32) if bits >> 31 else bits


@flavours
def test_warp_functions(harness, flavour):
    x = [(37 * i) % 64 - 20 for i in range(32)]
    lanes = range(32)
    expected = [
        [x[i // 16 * 16 + (i + 5) % 16] for i in lanes],
        [x[i - 3] if i >= 3 else x[i] for i in lanes],
        [x[i - 3] if i % 8 >= 3 else x[i] for i in lanes],
        [x[i + 3] if i < 29 else x[i] for i in lanes],
        [x[i + 3] if i % 8 < 5 else x[i] for i in lanes],
        [x[i ^ 9] for i in lanes],
        [signed(sum(1 << i for i in lanes if x[i] > 0))] * 32,
        [2] * 32,
        [2] * 32,
        [signed(sum(1 << j for j in lanes if abs(x[j]) % 4 * (x[j] < 0 or -1) == abs(x[i]) % 4 * (x[i] < 0 or -1)))
         for i in lanes],
        [sum(x)] * 32,
        [min(x)] * 32,
        [max(x)] * 32,
        [63] * 32,
        [x[i ^ 1] if i < 16 else 3 * sum(x[16:]) for i in lanes],
    ]  # fmt: skip
    for emulator in every_order(harness[flavour]):
        out = torch.zeros(len(expected), 32, dtype=torch.int32)
        emulator.launch("warp_functions", torch.tensor(x, dtype=torch.int32), out)
        assert out.tolist() == expected


@flavours
def test_large_block(harness, flavour):
    x = torch.randperm(1024, generator=torch.Generator().manual_seed(0)).int()
    v = x
    for _ in range(20):
        v = v[(torch.arange(1024) * 7 + 3) % 1024]
    for emulator in every_order(harness[flavour]):
        out = torch.zeros_like(x)
        emulator.launch("large_block", x, out)
        assert torch.equal(out, v + 342 + 1)


@flavours
@pytest.mark.parametrize(("kernel", "m", "n", "k"), [("gemm_mma", 70, 50, 72), ("gemm_wmma", 32, 48, 80)])
def test_matrix_product(harness, flavour, kernel, m, n, k):
    g = torch.Generator().manual_seed(1)
    a, b = (torch.randn(rows, k, generator=g).half() for rows in (m, n))
    for emulator in every_order(harness[flavour]):
        c = poisoned(m, n, like=a, dtype=torch.float32)
        emulator.launch(kernel, a, b, c, m, n, k)
        torch.testing.assert_close(c, a.float() @ b.float().T, atol=1e-4, rtol=1e-4)


@flavours
def test_matrix_loads(harness, flavour):
    x = torch.arange(256.0).half().reshape(4, 8, 8)
    for emulator in every_order(harness[flavour]):
        out = poisoned(2, 4, 32, like=x, dtype=torch.int32)
        emulator.launch("matrix_loads", x, out)
        found = out.view(torch.float16).reshape(2, 4, 8, 8)  # row lane / 4, columns lane % 4 * 2 and the next
        assert torch.equal(found, torch.stack([x, x.mT]))


def test_forgotten_wait_for_an_async_copy_shows(harness):
    a = torch.ones(64, 32).half()
    c = torch.zeros(64, 32)
    harness["plain"].launch("gemm_mma_without_wait", a, a[:32], c, 64, 32, 32)
    assert c.isnan().all()
    with pytest.raises(KernelError, match="read of uninitialised data in shared memory"):
        harness["race"].launch("gemm_mma_without_wait", a, a[:32], c, 64, 32, 32)


@flavours
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_arithmetic(harness, flavour, dtype):
    a, b = torch.randn(2, 100, generator=torch.Generator().manual_seed(2)).to(dtype)
    out = poisoned(5, 100, like=a)
    harness[flavour].launch(f"half_arithmetic_{str(dtype).removeprefix('torch.')}", a, b, out, 100)
    fma = (a.double() * b.double() + a.double()).to(dtype)
    assert torch.equal(out, torch.stack([a + b, a * b, fma, a / 3, torch.maximum(a, b)]))
