"""Pictures of a run: bars against the peer, a roofline, cost against size."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from structops.bench.results import Row, Run, duration, flops, gigabytes, percent, times

# Okabe and Ito's palette: told apart with any colour vision, and by lightness in print.
COLOURS = {"native": "#0072B2", "triton": "#009E73", "reference": "#CC79A7", "peer": "#E69F00", "floor": "#555555"}
MARKERS = "osD^vP*Xpd"  # an op each, in the order of the rows
STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#888888",
    "axes.labelcolor": "#222222",
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.7,
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "legend.frameon": False,
    "svg.hashsalt": "structops",  # the same figures give the same file
    "figure.dpi": 100,
}


def draw(run: Run, folder: Path) -> list[tuple[str, str]]:
    """Write every picture that the run has data for, as PNG and SVG.

    Returns:
        file name without its ending, and caption, of each.
    """
    made = []
    with plt.rc_context(STYLE):
        for device, limits in run.limits.items():
            # A GPU's rows are shown with cold caches, where the floor holds.
            rows = [row for row in run.rows if row.device == device and row.cache != "hot"]
            processor = f"{run.machine['processor']}, {run.machine['threads']} threads"
            where = processor if device == "cpu" else str(run.machine["gpu"])
            backends = list(dict.fromkeys(row.backend for row in rows))
            pictures = []
            for backend in backends:
                mine = [row for row in rows if row.backend == backend and row.kind != "sweep"]
                name, place = (device, where) if len(backends) == 1 else (f"{device}-{backend}", f"{where}, {backend}")
                pictures.append((f"peers-{name}", bars(mine, place), BARS_CAPTION))
                pictures.append((f"roofline-{name}", roofline(mine, limits, place), ROOFLINE_CAPTION))
            sweeps = [row for row in rows if row.kind == "sweep"]
            pictures.append((f"sweep-{device}", sweep(sweeps, where), "Time against size; dotted: the floor."))
            for name, figure, caption in pictures:
                if figure is not None:
                    made.append((name, caption))
                    save(figure, folder / name)
    return made


BARS_CAPTION = (
    "Times as fast as torchvision (or whom the times name), the median of paired calls; beside it the median of each."
)
ROOFLINE_CAPTION = (
    "Compulsory operations a second over compulsory operations a byte, under what this machine copies and multiplies. "
    "Filled: structops; hollow: the other library on the same workload. The percentage is the share of the floor."
)


def save(figure: Figure, path: Path) -> None:
    figure.savefig(path.with_suffix(".png"), dpi=160, bbox_inches="tight", facecolor="white")
    figure.savefig(path.with_suffix(".svg"), bbox_inches="tight", facecolor="white", metadata={"Date": None})
    plt.close(figure)


def rival(rows: Sequence[Row]) -> str:
    """The library that these rows are compared with."""
    names = {row.peer.name.partition(", ")[0] for row in rows if row.peer}
    return names.pop() if len(names) == 1 else "others"


def bars(rows: Sequence[Row], where: str) -> Figure | None:
    """How many times as fast as the peer, a bar a workload, with both times beside it."""
    pairs = [(row, row.peer) for row in rows if row.peer]
    if not pairs:
        return None
    figure, axes = plt.subplots(figsize=(9, 0.34 * len(pairs) + 1.3))
    places = range(len(pairs), 0, -1)
    # From 1, since a log scale has no zero to start at: what is slower than the peer goes to the left.
    ratios, colours = [peer.ratio for _, peer in pairs], [COLOURS[row.backend] for row, _ in pairs]
    axes.barh(places, [ratio - 1 for ratio in ratios], left=1, height=0.66, color=colours)
    axes.set_yticks(places, [f"{row.op}  {row.title}" for row, _ in pairs])
    axes.set_xscale("log")
    axes.set_xlim(min(0.9, min(ratios) * 0.8), max(*ratios, 1) * 1.6)
    axes.set_ylim(0.3, len(pairs) + 0.7)
    axes.axvline(1, color=COLOURS["peer"], linewidth=2)
    axes.text(1, len(pairs) + 0.75, rival(rows), color="#9a6a00", ha="center", va="bottom", fontsize=9)
    for place, (row, peer) in zip(places, pairs, strict=True):
        both = f"{duration(peer.median)}{peer.note} \N{RIGHTWARDS ARROW} {duration(row.median)}"
        speed = times(peer.ratio).replace("x", "\N{MULTIPLICATION SIGN}")
        axes.annotate(speed, (max(peer.ratio, 1), place), xytext=(4, 0),
                      textcoords="offset points", va="center", fontsize=9, fontweight="bold")  # fmt: skip
        axes.annotate(both, (1, place), xycoords=("axes fraction", "data"), xytext=(14, 0),
                      textcoords="offset points", va="center", fontsize=9, color="#444444")  # fmt: skip
    axes.set_xlabel(f"times as fast as {rival(rows)} (log scale)")
    left, right = axes.get_xlim()
    ticks = [step * 10.0**decade for decade in range(-3, 4) for step in (1, 2, 5)]
    axes.set_xticks([tick for tick in ticks if left <= tick <= right])
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}\N{MULTIPLICATION SIGN}")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.grid(axis="x")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_title(f"structops against {rival(rows)} \N{EN DASH} {where}", pad=22)
    return figure


def spread(wanted: Sequence[float], gap: float) -> list[float]:
    """Places for labels near the wanted ones (rising), at least ``gap`` apart and within 0 to 1: neighbours too close
    share the shift."""
    groups: list[list[float]] = []  # of wanted places; each group is laid out around its mean
    for place in wanted:
        groups.append([place])
        while len(groups) > 1 and _bottom(groups[-1], gap) < _bottom(groups[-2], gap) + gap * len(groups[-2]):
            groups[-2:] = [groups[-2] + groups[-1]]
    places = [_bottom(group, gap) + gap * i for group in groups for i in range(len(group))]
    last = len(places) - 1
    return [max(min(place, 1 - gap * (last - i)), gap * i) for i, place in enumerate(places)]


def _bottom(group: Sequence[float], gap: float) -> float:
    return sum(group) / len(group) - gap * (len(group) - 1) / 2


def roofline(rows: Sequence[Row], limits: dict[str, float], where: str) -> Figure | None:
    """Operations a second against operations a byte, under the machine's copy bandwidth and matrix rate."""
    rows = [row for row in rows if row.flops > 0]
    if not rows:
        return None
    figure, axes = plt.subplots(figsize=(9.5, max(5.5, 0.31 * len(rows) + 1)))
    intensity = [row.flops / row.bytes for row in rows]
    rates = {name: rate for name, rate in limits.items() if name not in ("bytes", "float16")}  # which is bfloat16's
    ridge = max(rates.values()) / limits["bytes"]
    low, high = min(intensity) / 2, max(*intensity, ridge) * 4
    for name, peak in rates.items():
        axes.plot([peak / limits["bytes"], high], [peak, peak], color=COLOURS["floor"], linewidth=1.4)
        axes.annotate(f"matrix product, {name}: {flops(peak)}", (high, peak), xytext=(-2, 4),
                      textcoords="offset points", ha="right", fontsize=9, color=COLOURS["floor"],
                      bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5}, zorder=5)  # fmt: skip
    axes.plot([low, ridge], [low * limits["bytes"], max(rates.values())], color=COLOURS["floor"], linewidth=1.4)
    axes.set(xscale="log", yscale="log", xlim=(low, high))
    rate = lambda row, time: row.flops / time  # noqa: E731
    slowest = min(rate(row, max(row.median, row.peer.median if row.peer else 0)) for row in rows)
    bottom, top = slowest / 2, max(rates.values()) * 3
    axes.set_ylim(bottom, top)
    markers = dict(zip(dict.fromkeys(row.op for row in rows), itertools.cycle(MARKERS), strict=False))
    for row, x in zip(rows, intensity, strict=True):
        y, marker, colour = rate(row, row.median), markers[row.op], COLOURS[row.backend]
        if row.peer:
            theirs = rate(row, row.peer.median)
            axes.plot([x, x], [theirs, y], color="#bbbbbb", linewidth=1, zorder=2)
            axes.plot(x, theirs, marker, markerfacecolor="white", markeredgecolor=COLOURS["peer"], zorder=3)
        axes.plot(x, y, marker, color=colour, markersize=7, zorder=4)
    # Labels in a column at the right, in the order of their points.
    by_height = sorted(zip(rows, intensity, strict=True), key=lambda pair: rate(pair[0], pair[0].median))
    fraction = lambda y: math.log(y / bottom) / math.log(top / bottom)  # noqa: E731
    heights = [fraction(rate(row, row.median)) for row, _ in by_height]
    for (row, x), place in zip(by_height, spread(heights, 0.23 / (figure.get_figheight() * 0.77)), strict=True):
        axes.annotate(
            f"{percent(row.share)}  {row.op}  {row.title}",
            (x, rate(row, row.median)),
            xytext=(1.03, place),
            textcoords="axes fraction",
            va="center",
            fontsize=8.5,
            arrowprops={"arrowstyle": "-", "color": "#cccccc", "linewidth": 0.6, "shrinkB": 4, "relpos": (0, 0.5)},
        )
    middle = math.sqrt(low * ridge)
    axes.annotate(f"copy: {gigabytes(limits['bytes'])}", (middle, middle * limits["bytes"]), xytext=(-6, 6),
                  textcoords="offset points", ha="right", fontsize=9, color=COLOURS["floor"])  # fmt: skip
    axes.set_xlabel("compulsory operations a byte")
    axes.set_ylabel("compulsory operations a second")
    axes.yaxis.set_major_formatter(lambda value, _: _decade(value, (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3))))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.grid()
    axes.set_title(f"Roofline \N{EN DASH} {where}", pad=12)
    handles = [Line2D([], [], marker="o", linestyle="", color=COLOURS[rows[0].backend], label="structops")]
    if any(row.peer for row in rows):
        handles.append(
            Line2D([], [], marker="o", linestyle="", color=COLOURS["peer"], fillstyle="none", label=rival(rows))
        )
    axes.legend(handles=handles, loc="lower right", bbox_to_anchor=(1.01, 1.0), ncols=len(handles), handletextpad=0.2)
    return figure


def sweep(rows: Sequence[Row], where: str) -> Figure | None:
    """Time against size, a panel for each series, with the peer and the floor."""
    series = list(dict.fromkeys((row.op, row.series) for row in rows))
    if not series:
        return None
    figure, panels = plt.subplots(1, len(series), figsize=(5.2 * len(series), 4.2), squeeze=False)
    for axes, (op, name) in zip(panels[0], series, strict=True):
        here = [row for row in rows if (row.op, row.series) == (op, name)]
        for backend in dict.fromkeys(row.backend for row in here):
            mine = sorted((row for row in here if row.backend == backend), key=lambda row: row.size)
            label = "structops" if backend == "native" else f"structops, {backend}"
            _line(axes, [(row.size, row.median) for row in mine], label, COLOURS[backend], marker="o")
        peers = sorted({(row.size, row.peer.median) for row in mine if row.peer})
        _line(axes, peers, rival(mine), COLOURS["peer"], marker="s")
        floors = [(row.size, row.floor) for row in mine]
        _line(axes, floors, "floor", COLOURS["floor"], linestyle=":")
        axes.set(xscale="log", yscale="log", xlabel=name, title=op)
        left, right = axes.get_xlim()
        axes.set_xlim(left, right * (right / left) ** 0.3)  # room for the names of the lines
        axes.set_xticks([10.0**n for n in range(1, 9) if left <= 10**n <= right])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(
            lambda value, _: _decade(value, (("s", 1), ("ms", 1e-3), ("us", 1e-6), ("ns", 1e-9)))
        )
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.grid()
    panels[0][0].set_ylabel("time a call")
    figure.suptitle(f"Cost against size \N{EN DASH} {where}", x=0.02, ha="left", fontsize=11, fontweight="bold")
    figure.tight_layout()
    return figure


def _decade(value: float, units: Sequence[tuple[str, float]]) -> str:
    """A tick's number in the largest unit that it is at least one of."""
    for unit, size in units:  # noqa: B007
        if value >= 0.99 * size:
            break
    return f"{value / size:g} {unit}"


def _line(axes, points: Sequence[tuple[float, float]], label: str, colour: str, **style) -> None:
    """A curve with its name at its right end."""
    if points:
        axes.plot(*zip(*points, strict=True), color=colour, linewidth=1.8, markersize=5, **style)
        axes.annotate(
            label, points[-1], xytext=(7, 0), textcoords="offset points", va="center", fontsize=9, color=colour
        )
