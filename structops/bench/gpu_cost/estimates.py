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
from structops.bench.gpu_cost.scenes import Family, Scene, families
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
        tensor_flops: of instructions for tensor cores.
        busiest: the share of the multiprocessor with most blocks, of the launch with most instructions.
        registers, shared, occupancy: of the launch with most instructions; bytes a block; share of 64 warps.
    """

    launches: int
    syncs: int
    instructions: float
    bytes: float
    l2_bytes: float
    times: dict[str, float]
    tensor_flops: float
    busiest: float
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
    """``cost``: what any implementation has to move and do; ``floor``: seconds, on tensor cores where it has halves."""

    op: str
    title: str
    cost: Cost
    floor: float
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
    tensor = [launch.tensor_flops(code[launch.kernel]) for launch in launches]
    shares = [launch.share_of_busiest(gpu.multiprocessors) for launch in launches]

    def busiest(values: Iterable[float]) -> float:
        """What the multiprocessor with most blocks needs, were all as busy."""
        return sum(value * share for value, share in zip(values, shares, strict=True))

    times = gpu.times(
        moved,
        l2_bytes,
        busiest(launch.lines for launch in launches),
        busiest(issued),
        busiest(launch.wavefronts(code[launch.kernel]) for launch in launches),
        busiest(tensor),
    )
    kernel = code[main.kernel]
    return Side(
        *calls,
        sum(issued) * WARP / outputs,
        moved,
        l2_bytes,
        times,
        sum(tensor),
        main.share_of_busiest(gpu.multiprocessors),
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


def count(gpu: Gpu = H200, ops: Iterable[str] = ()) -> list[tuple[Family, list[Estimate]]]:
    """Every scene, or those of the named ops, by families."""
    own_path, peer_path = libraries()
    own_code = sass.read(own_path)
    peer_code = sass.read(peer_path) if peer_path else None
    wanted, found = set(ops), []
    for family in families():
        scenes = [s for op, draw in family.scenes.items() if not wanted or op in wanted for s in draw()]
        if scenes:
            found.append((family, [estimate(scene, own_code, peer_code, gpu) for scene in scenes]))
    return found


def estimate(
    scene: Scene, own_code: dict[str, sass.Kernel], peer_code: dict[str, sass.Kernel] | None, gpu: Gpu = H200
) -> Estimate:
    cost, launches = scene.cost(), scene.own()
    own = _side(own_code, launches, (len(launches), 0), scene.outputs, cost.bytes + scene.extra, gpu)
    theirs = None
    if scene.peer is not None and peer_code is not None:
        moved = scene.peer.cost().bytes + scene.peer.extra
        theirs = _side(peer_code, scene.peer.launches(), scene.peer.calls(), scene.outputs, moved, gpu)
    floor = gpu.floor(cost.bytes, cost.flops, own.tensor_flops > 0)
    return Estimate(scene.op, scene.title, cost, floor, own, theirs)
