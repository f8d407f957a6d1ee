"""Ways through a kernel, and how often warps go them: instructions, turns of the shared memory, tensor-core work.

Unlike the counts of ``kernels``, which take every branch of a loop to run, a way is the shortest that meets what it has
to (``Loop.path``): these counts are lower bounds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from structops.bench.gpu_cost.geometry import WARP
from structops.bench.gpu_cost.kernels import Launch
from structops.bench.gpu_cost.sass import Instruction, Kernel

MMA_FLOPS = 2 * 16 * 8 * 16  # of one HMMA.16816: a product of 16 x 16 and 16 x 8
BANKS, WORD = 32, 4


@dataclass(frozen=True)
class Walk:
    """``turns``: of all warps together. ``conflicts``: extra turns of the shared memory each time, where accesses meet
    in a bank."""

    path: Sequence[Instruction]
    turns: float
    conflicts: float = 0.0

    @property
    def wavefronts(self) -> float:
        return self.turns * (sum(map(wavefronts, self.path)) + self.conflicts)

    @property
    def products(self) -> int:
        return sum(i.is_one_of(("HMMA",)) for i in self.path)


def wavefronts(instruction: Instruction) -> int:
    """Turns of the shared memory that a full warp's access takes: one for 128 bytes, without conflicts."""
    name, *parts = instruction.opcode.split(".")
    if name not in ("LDS", "STS", "LDSM", "LDGSTS"):
        return 0
    return 4 if "128" in parts or name == "LDSM" else 2 if "64" in parts else 1


def walked(
    kernel: str, threads: int, shared: int, walks: Callable[[Kernel], list[Walk]], blocks: int = 0, **traffic: float
) -> Launch:
    """``traffic``: sectors and lines."""
    known: dict[int, list[Walk]] = {}

    def of(code: Kernel) -> list[Walk]:
        if id(code) not in known:
            known[id(code)] = walks(code)
        return known[id(code)]

    return Launch(
        kernel,
        threads,
        shared,
        lambda code: sum(len(w.path) * w.turns for w in of(code)),
        wavefronts=lambda code: sum(w.wavefronts for w in of(code)),
        tensor_flops=lambda code: sum(w.products * w.turns for w in of(code)) * MMA_FLOPS,
        blocks=blocks,
        **traffic,
    )


def bank_turns(words: Sequence[int], width: int) -> int:
    """Turns of the shared memory for the lanes' accesses at these words of four bytes, ``width`` words each.

    Lanes go together as 128 bytes allow; those that want other words of one bank, one after another.
    """
    lanes = WARP // width
    turns = 0
    for first in range(0, WARP, lanes):
        wanted = {word + i for word in words[first : first + lanes] for i in range(width)}
        banks = [word % BANKS for word in wanted]
        turns += max(banks.count(bank) for bank in set(banks))
    return turns
