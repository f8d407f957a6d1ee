"""A picture of counted costs: which limit of the GPU binds each workload."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from structops.bench.gpu_cost.estimates import Estimate
from structops.bench.gpu_cost.gpu import H200
from structops.bench.pictures import STYLE
from structops.bench.pictures import save as save_figure
from structops.bench.results import duration

COLOURS = {
    "memory": "#0072B2",
    "L2": "#56B4E9",
    "L1": "#E69F00",
    "shared": "#F0E442",
    "issue": "#CC79A7",
    "tensor": "#009E73",
}


def save(estimates: Sequence[Estimate], limits: Sequence[str], path: Path) -> None:
    with plt.rc_context(STYLE):
        save_figure(draw(estimates, limits), path)


def draw(estimates: Sequence[Estimate], limits: Sequence[str]) -> Figure:
    """A group of bars a workload, in shares of the limit that binds; both least times beside it."""
    figure, axes = plt.subplots(figsize=(9, 0.52 * len(estimates) + 1.4))
    height = 0.8 / len(limits)
    for place, estimate in enumerate(reversed(estimates)):
        own, peer = estimate.own, estimate.peer
        for i, limit in enumerate(limits):
            share = own.times[limit] / own.least
            axes.barh(place + 0.4 - (i + 0.5) * height, share, height * 0.92, color=COLOURS[limit])
        text = f"{duration(own.least)}, {own.limit}"
        theirs = f"torchvision {duration(peer.least)}, {peer.limit}" if peer else f"floor {duration(estimate.floor)}"
        for line, offset, weight in ((text, 0.16, "bold"), (theirs, -0.2, "normal")):
            axes.annotate(line, (1, place + offset), xycoords=("axes fraction", "data"), xytext=(10, 0),
                          textcoords="offset points", va="center", fontsize=8.5, fontweight=weight)  # fmt: skip
    axes.set_yticks(range(len(estimates)), [f"{e.op}  {e.title}" for e in reversed(estimates)])
    axes.set_xlim(0, 1)
    axes.set_ylim(-0.6, len(estimates) - 0.4)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_xlabel("share of the least time that the limits allow")
    axes.grid(axis="x")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_title(f"What binds the CUDA kernels \N{EN DASH} {H200.name}, counted, not measured", pad=26)
    handles = [Patch(color=COLOURS[limit], label=limit) for limit in limits]
    axes.legend(handles=handles, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=len(handles))
    return figure
