"""The GPU that costs are set against, and how many blocks of a kernel it holds."""

from __future__ import annotations

from dataclasses import dataclass

from structops.bench.gpu_cost.sass import Kernel


@dataclass(frozen=True)
class Gpu:
    """An H200 (Hopper, sm_90). ``clock`` in Hz, ``memory`` and ``l2`` in bytes a second.

    memory: a large copy, read and written, measured on an H200; its data sheet says 4.8e12. l2: assumed, about what
    others have read from an H100's, which is the same one; the weakest of these numbers. clock: assumed, under load;
    the data sheet allows 1.98 GHz. A multiprocessor issues four warp instructions a clock and looks up one line of 128
    bytes in its L1 cache.
    """

    name: str = "H200"
    multiprocessors: int = 132
    clock: float = 1.7e9
    memory: float = 4.3e12
    l2: float = 5.5e12
    issued_a_clock: int = 4

    def times(self, bytes_: float, l2_bytes: float, lines: float, instructions: float) -> dict[str, float]:
        """The least seconds by each limit."""
        clocks = self.multiprocessors * self.clock
        return {
            "memory": bytes_ / self.memory,
            "L2": l2_bytes / self.l2,
            "L1": lines / clocks,
            "issue": instructions / (clocks * self.issued_a_clock),
        }


H200 = Gpu()
REGISTERS, SHARED, BLOCKS, WARPS = 65536, 228 * 1024, 32, 64  # of a multiprocessor
RESERVED = 1024  # shared memory that the driver keeps of each block


def occupancy(kernel: Kernel, threads: int, shared: int) -> float:
    """The share of a multiprocessor's 64 warps that can be there at once."""
    warps = -(-threads // 32)
    by_registers = REGISTERS // (warps * -(-max(kernel.registers, 1) * 32 // 256) * 256)
    by_shared = SHARED // (kernel.shared + shared + RESERVED)
    return min(by_registers, by_shared, BLOCKS, WARPS // warps) * warps / WARPS
