"""The GPU that costs are set against, and how many blocks of a kernel it holds."""

from __future__ import annotations

from dataclasses import dataclass

from structops.bench.gpu_cost.sass import Kernel


@dataclass(frozen=True)
class Gpu:
    """An H200 (Hopper, sm_90). ``clock`` in Hz, ``memory`` and ``l2`` in bytes a second.

    memory: a large copy, read and written, measured on an H200; its data sheet says 4.8e12. l2: assumed, about what
    others have read from an H100's, which is the same one; the weakest of these numbers. clock: assumed, under load;
    the data sheet allows 1.98 GHz. A multiprocessor issues four warp instructions a clock, looks up one line of 128
    bytes in its L1 cache, and reads or writes 128 bytes of its shared memory.

    tensor: of halves, of a multiprocessor in a clock (989 TFLOP/s of 132 at 1.83 GHz), for the asynchronous
    instructions that Hopper added (wgmma). mma_share: what the kernels' warp-wide ones (mma.sync, HMMA in machine code)
    reach of it: 62.9 % on average, as measured on an H100 by Luo et al., "Benchmarking and Dissecting the Nvidia Hopper
    GPU Architecture via Microbenchmarking", arXiv:2402.13499, 2024.
    """

    name: str = "H200"
    multiprocessors: int = 132
    clock: float = 1.7e9
    memory: float = 4.3e12
    l2: float = 5.5e12
    issued_a_clock: int = 4
    tensor: float = 4096.0
    mma_share: float = 0.63

    def times(
        self,
        bytes_: float,
        l2_bytes: float,
        lines: float,
        instructions: float,
        wavefronts: float = 0.0,
        tensor_flops: float = 0.0,
    ) -> dict[str, float]:
        """The least seconds by each limit."""
        clocks = self.multiprocessors * self.clock
        return {
            "memory": bytes_ / self.memory,
            "L2": l2_bytes / self.l2,
            "L1": lines / clocks,
            "shared": wavefronts / clocks,
            "issue": instructions / (clocks * self.issued_a_clock),
            "tensor": tensor_flops / (clocks * self.tensor * self.mma_share),
        }

    def floor(self, bytes_: float, flops: float, halves: bool) -> float:
        """The least seconds of any implementation: of its bytes, and of its operations on tensor cores at their best,
        or by fused multiply-adds of 32 lanes."""
        a_clock = self.tensor if halves else self.issued_a_clock * 32 * 2
        return max(bytes_ / self.memory, flops / (self.multiprocessors * self.clock * a_clock))


H200 = Gpu()
REGISTERS, SHARED, BLOCKS, WARPS = 65536, 228 * 1024, 32, 64  # of a multiprocessor
RESERVED = 1024  # shared memory that the driver keeps of each block


def occupancy(kernel: Kernel, threads: int, shared: int) -> float:
    """The share of a multiprocessor's 64 warps that can be there at once."""
    warps = -(-threads // 32)
    by_registers = REGISTERS // (warps * -(-max(kernel.registers, 1) * 32 // 256) * 256)
    by_shared = SHARED // (kernel.shared + shared + RESERVED)
    return min(by_registers, by_shared, BLOCKS, WARPS // warps) * warps / WARPS
