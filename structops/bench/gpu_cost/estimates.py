"""What comes out: instructions, bytes and launches of each workload beside the GPU's limits."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import structops
from structops.bench.gpu_cost import sass
from structops.bench.gpu_cost.geometry import SECTOR, WARP
from structops.bench.gpu_cost.gpu import H200, Gpu, occupancy
from structops.bench.gpu_cost.kernels import Launch
from structops.bench.gpu_cost.scenes import scenes
from structops.testing.workloads import Cost


@dataclass(frozen=True)
class Side:
    """One implementation of a workload.

    Attributes:
        launches: kernels and fills on the GPU.
        syncs: times that the host waits for the GPU.
        instructions: of a thread, for each output element (each element of the features' gradient, of a backward).
        bytes: to and from memory: what must be, and what this way of doing it adds.
        l2_bytes: between the L2 cache and the multiprocessors.
        times: least seconds by each limit.
        registers, shared, occupancy: of the launch with most instructions; bytes a block; share of 64 warps.
    """

    launches: int
    syncs: int
    instructions: float
    bytes: float
    l2_bytes: float
    times: dict[str, float]
    registers: int
    shared: int
    occupancy: float

    @property
    def limit(self) -> str:
        return max(self.times, key=self.times.__getitem__)

    @property
    def least(self) -> float:
        return self.times[self.limit]


@dataclass(frozen=True)
class Estimate:
    """``cost``: what any implementation has to move and do."""

    op: str
    title: str
    cost: Cost
    own: Side
    peer: Side | None


def _side(
    code: dict[str, sass.Kernel],
    launches: list[Launch],
    calls: tuple[int, int],
    outputs: int,
    moved: float,
    gpu: Gpu,
) -> Side:
    issued = [launch.instructions(code[launch.kernel]) for launch in launches]
    main = launches[issued.index(max(issued))]
    l2_bytes = sum(launch.sectors for launch in launches) * SECTOR
    times = gpu.times(moved, l2_bytes, sum(launch.lines for launch in launches), sum(issued))
    kernel = code[main.kernel]
    return Side(
        *calls,
        sum(issued) * WARP / outputs,
        moved,
        l2_bytes,
        times,
        kernel.registers,
        kernel.shared + main.shared,
        occupancy(kernel, main.threads, main.shared),
    )


def libraries() -> tuple[Path, Path | None]:
    """The built CUDA library, and torchvision's (``None`` where it has no CUDA code).

    Raises:
        FileNotFoundError: when the former is not built.
    """
    own = Path(structops.__file__).parent / "_C_cuda.abi3.so"
    if not own.is_file():
        raise FileNotFoundError(f"{own.name} is not built: counting needs the CUDA kernels, though no GPU")
    spec = find_spec("torchvision")
    folder = Path(spec.origin).parent if spec is not None and spec.origin else None
    found = [folder / name for name in ("_C_stable.so", "_C.so") if folder and (folder / name).is_file()]
    return own, next((path for path in found if sass.read(path)), None)


def count(gpu: Gpu = H200, ops: Iterable[str] = ()) -> list[Estimate]:
    """Every scene, or those of the named ops."""
    own_path, peer_path = libraries()
    own_code = sass.read(own_path)
    peer_code = sass.read(peer_path) if peer_path else None
    found = []
    for scene in scenes(ops):
        cost, launches = scene.cost(), scene.own()
        own = _side(own_code, launches, (len(launches), 0), scene.outputs, cost.bytes, gpu)
        theirs = None
        if peer_code is not None:
            moved = scene.peer_cost().bytes + scene.peer_extra
            theirs = _side(peer_code, scene.peer(), scene.peer_calls(), scene.outputs, moved, gpu)
        found.append(Estimate(scene.op, scene.title, cost, own, theirs))
    return found
