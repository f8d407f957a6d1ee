"""Machine code of compiled CUDA kernels, read with cuobjdump: instructions, loops, registers."""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

ARCHITECTURE = "sm_90"
AVOIDED = 1000  # a call's length, in comparisons of ways through


def cuobjdump() -> str | None:
    """The toolkit's, or the one that Triton carries."""
    found = shutil.which("cuobjdump")
    spec = None if found else find_spec("triton")
    if spec is None or spec.origin is None:
        return found
    carried = Path(spec.origin).parent / "backends/nvidia/bin/cuobjdump"
    return str(carried) if carried.is_file() else None


def missing_tools() -> list[str]:
    """What cannot be found of what reading machine code needs."""
    found = {"cuobjdump (of the CUDA toolkit, or of Triton)": cuobjdump(), "c++filt": shutil.which("c++filt")}
    return [name for name, path in found.items() if path is None]


@dataclass(frozen=True)
class Instruction:
    """``text``: opcode and operands. ``target``: where a branch goes. ``conditional``: some lanes may not take part."""

    address: int
    text: str
    target: int | None = None
    conditional: bool = False

    @property
    def opcode(self) -> str:
        return self.text.split()[0]

    @property
    def leaves(self) -> bool:
        """Whether what follows is not what comes next, for lanes that take part."""
        return self.target is not None or self.opcode.split(".")[0] in ("EXIT", "RET")

    def is_one_of(self, opcodes: tuple[str, ...]) -> bool:
        """``"LDG"`` is any load from global memory; ``"LDG.E.128"`` one that begins so."""
        return any(self.opcode == o or self.opcode.startswith(f"{o}.") for o in opcodes)


@dataclass
class Loop:
    """A backward branch and what it spans. ``inner``: the loops right inside, in order.

    Code that a compiler has moved out of the span and calls (the slow path of a division) are not known: they are taken
    not to run. Of the paths that branches inside the span leave out, ``own`` counts all, and ``path`` the fewest.
    """

    first: int
    last: int
    instructions: list[Instruction]
    inner: list[Loop] = field(default_factory=list)

    @property
    def own(self) -> list[Instruction]:
        """Instructions in no loop further in."""
        return [i for i in self.instructions if not any(loop.first <= i.address <= loop.last for loop in self.inner)]

    def count(self, *opcodes: str) -> int:
        return sum(i.is_one_of(opcodes) for i in self.instructions)

    def path(self, *payload: str) -> list[Instruction]:
        """The shortest way through once, of those that meet most instructions of ``payload``, which may be in inner
        loops; these themselves are left out.

        What a turn runs depends on its branches, which machine code does not tell. The payload says which of them are
        wanted (``"STG"``: the turn writes), and what is then left to choose is skipped: a count of these instructions
        is a lower bound, where ``own`` is an upper one. A call is a slow path (a division of large numbers) and is
        avoided where it can be.

        Raises:
            ValueError: when there is none of a payload here: the loop is not the one that the caller knows.
        """
        absent = [opcode for opcode in payload if not self.count(opcode)]
        if absent:
            raise ValueError(f"no {' and no '.join(absent)} in the loop at {max(self.first, 0):#x}")
        at = {i.address: place for place, i in enumerate(self.instructions)}
        inner = {i.address for loop in self.inner for i in loop.instructions}
        # For each instruction the best way there, itself included: (fewer of the payload, longer, the one before).
        best: dict[int, tuple[int, int, int | None]] = {0: (0, 0, None)}
        ends = []
        for place, i in enumerate(self.instructions):
            if place not in best:
                continue  # only reached from behind, or not at all
            missed, length, before = best[place]
            missed -= i.is_one_of(payload)
            if i.address not in inner:
                length += AVOIDED if i.opcode.startswith("CALL") else 1
            best[place] = missed, length, before
            following = [] if i.leaves and not i.conditional else [place + 1]
            if i.target is not None and i.target > i.address and i.target in at:
                following.append(at[i.target])
            for n in following:
                if n < len(self.instructions) and (n not in best or (missed, length) < best[n][:2]):
                    best[n] = missed, length, place
            if i.target == self.first or (self.first < 0 and i.opcode == "EXIT"):
                ends.append(place)
        found: list[Instruction] = []
        step: int | None = min(ends, key=lambda place: best[place][:2])
        while step is not None:
            if self.instructions[step].address not in inner:
                found.append(self.instructions[step])
            step = best[step][2]
        return found[::-1]

    def walk(self) -> list[list[Loop]]:
        """Every loop in here with those around it, outermost first, this one excluded."""
        return [[loop, *rest] for loop in self.inner for rest in ([], *loop.walk())]


@dataclass
class Kernel:
    """One function. ``shared``: static shared memory in bytes."""

    instructions: list[Instruction]
    registers: int = 0
    stack: int = 0
    shared: int = 0

    @functools.cached_property
    def body(self) -> Loop:
        """The whole, as a loop that runs once."""
        spans = {(i.target, i.address) for i in self.instructions if i.target is not None and i.target < i.address}
        end = self.instructions[-1].address + 16 if self.instructions else 0
        return _nested(self.instructions, -1, end, sorted(spans, key=lambda span: (span[0], -span[1])))

    def hottest(self, *opcodes: str, depth: int) -> list[Loop]:
        """The loops around the most instructions of a kind, outermost first.

        Raises:
            ValueError: when there are not ``depth`` of them: the kernel is not the one that the caller knows.
        """
        nests = [nest for nest in self.body.walk() if len(nest) == depth and nest[-1].count(*opcodes)]
        if not nests:
            raise ValueError(f"no {depth} nested loops around {' or '.join(opcodes)}")
        return max(nests, key=lambda nest: nest[-1].count(*opcodes))


def _nested(instructions: list[Instruction], first: int, last: int, spans: list[tuple[int, int]]) -> Loop:
    """``spans``: of the loops strictly inside, sorted by their beginning, longest first."""
    loop = Loop(first, last, [i for i in instructions if first <= i.address <= last])
    rest = list(spans)
    while rest:
        begin, end = rest.pop(0)
        # Two branches back to one place (a `continue`) are one loop, the longer.
        inside = [span for span in rest if span[0] <= end]
        rest = [span for span in rest if span[0] > end]
        end = max([end, *(e for b, e in inside if b < end < e)])
        loop.inner.append(_nested(instructions, begin, end, [s for s in inside if s[0] != begin and s[1] <= end]))
    return loop


def short_name(demangled: str) -> str:
    """A kernel's name and template arguments, without namespaces, return type and parameters."""
    name = demangled.removeprefix("void ").replace("(anonymous namespace)::", "")
    return re.sub(r"\w+::", "", name.split("(")[0])


def demangle(names: list[str]) -> dict[str, str]:
    """Mangled name -> short name."""
    if not names:
        return {}
    printed = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True).stdout
    return dict(zip(names, map(short_name, printed.splitlines()), strict=True))


def parse(text: str) -> dict[str, list[Instruction]]:
    """What ``cuobjdump -sass`` prints: mangled name -> instructions, predicates left out of their text."""
    found = {}
    for part in text.split("Function : ")[1:]:
        name, _, listing = part.partition("\n")
        instructions = []
        for address, predicate, code in re.findall(r"/\*([0-9a-f]{4,5})\*/\s+(@!?U?P\w+\s+)?([^;]+);", listing):
            target = re.fullmatch(r"BRA\S*\s+(\S+,\s*)?(0x[0-9a-f]+)", code.strip())
            goes = int(target[2], 16) if target else None
            conditional = bool(predicate or (target and target[1]))
            instructions.append(Instruction(int(address, 16), code.strip(), goes, conditional))
        found[name.strip()] = instructions
    return found


@functools.cache
def read(binary: Path) -> dict[str, Kernel]:
    """The sm_90 kernels of a library or a cubin, by short name."""
    tool = cuobjdump()
    assert tool is not None, "ask missing_tools() first"

    def printed(what: str) -> str:
        command = [tool, "-arch", ARCHITECTURE, what, str(binary)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    code, usage = parse(printed("-sass")), printed("-res-usage")
    short = demangle(list(code))
    found = {short[name]: Kernel(instructions) for name, instructions in code.items()}
    used = re.findall(r"Function (\w+):\s+REG:(\d+) STACK:(\d+) SHARED:(\d+)", usage)
    for name, registers, stack, shared in used:
        kernel = found[short[name]]
        # The first KiB of shared memory is the driver's.
        kernel.registers, kernel.stack, kernel.shared = int(registers), int(stack), max(int(shared) - 1024, 0)
    return found
