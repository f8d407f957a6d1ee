"""Benchmarks: the traffic model against brute force, the comparison's verdicts, and the command from end to end."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import typer
from typer.testing import CliRunner

from structops.bench import measure, pictures, results
from structops.bench.machine import floor
from structops.bench.results import Change, Peer, Row, Run
from structops.cli import bench
from structops.reference.roi_align import roi_weights
from structops.testing import workloads
from structops.testing.workloads import Cost, Trial, Workload
from structops.testing.workloads.roi_align import Shape, cost

app = typer.Typer()
app.command()(bench.command)


@pytest.mark.parametrize("sampling_ratio", [2, -1, 3])
@pytest.mark.parametrize("images", [1, 2])
def test_roi_align_cost_is_what_the_weights_say(sampling_ratio, images):
    shape = Shape("", 12, 5, 3, 20, 24, 4, smallest=2, largest=60, images=images, sampling_ratio=sampling_ratio)
    rois = shape.rois_tensor(torch.Generator().manual_seed(1))
    touched = torch.zeros(images, shape.height, shape.width, dtype=torch.bool)
    operations = 0
    for roi in rois.double().tolist():
        scale, pooled, _, ratio, aligned = shape.options()
        index, wy, wx = roi_weights(
            roi, scale, (pooled, pooled), ratio, aligned, (images, 5, shape.height, shape.width)
        )
        rows, columns = wy != 0, wx != 0
        touched[index] |= rows.any(0)[:, None] & columns.any(0)
        rows_first = rows.sum() * columns.any(0).sum() + pooled * columns.sum()
        columns_first = columns.sum() * rows.any(0).sum() + pooled * rows.sum()
        operations += 2 * shape.channels * int(min(rows_first, columns_first))
    outputs = shape.rois * shape.pooled**2
    forward, backward = cost(shape, rois, 4, backward=False), cost(shape, rois, 2, backward=True)
    assert forward == Cost((outputs + int(touched.sum())) * 5 * 4 + rois.nbytes, operations)
    assert backward == Cost((outputs + touched.numel()) * 5 * 2 + rois.nbytes, operations)


def test_floor_is_the_tighter_bound():
    limits = {"bytes": 10.0, "float32": 100.0, "bfloat16": 1000.0}
    assert floor(Cost(100, 100), torch.float32, limits) == (10.0, "memory")
    assert floor(Cost(100, 10_000), torch.float32, limits) == (100.0, "arithmetic")
    assert floor(Cost(100, 10_000), torch.bfloat16, limits) == (10.0, "memory")


def test_every_op_has_unique_quick_workloads():
    for those in workloads.workloads().values():
        assert len({w.name for w in those}) == len(those)
        assert any(w.quick for w in those), those[0].op


def test_a_wrong_result_is_not_timed():
    def check(result, peer_result):
        assert torch.equal(result, peer_result), "differs"

    trial = Trial(lambda: torch.zeros(2), lambda: torch.ones(2), "peer", check, lambda _: Cost(1, 1))
    workload = Workload("op", "name", "title", "forward", torch.float32, lambda device: trial)
    benchmark = SimpleNamespace(pedantic=lambda *a, **k: pytest.fail("timed"))
    with pytest.raises(AssertionError, match="differs"):
        measure.measure(benchmark, workload, measure.Setting("cpu", "reference"), measure.QUICK, {})


def row(time: float, ratio: float | None) -> Row:
    peer = Peer("torchvision", 1.0, 1.0, 5, ratio) if ratio else None
    return Row("op", "n", "t", "forward", "cpu", "native", "", time, time, 5, 1, 1, 0.5, "memory", peer=peer)


HERE = {"processor": "P", "cores": 2, "threads": 2}
THEN = Run(HERE, {}, (row(1.0, 4.0),))


@pytest.mark.parametrize(
    ("time", "ratio", "slower"),
    [(1.0, 4.0, False), (2.0, 2.0, True), (2.0, 4.0, False), (1.0, 2.0, False), (1.2, 3.4, False), (3.0, None, True)],
)
def test_slower_counts_only_when_the_peer_was_not(time, ratio, slower):
    (change,) = results.compare(Run(HERE, {}, (row(time, ratio),)), THEN).values()
    assert change.beyond(1.3) == slower


@pytest.mark.parametrize("flops", [0, 7])
def test_pictures_of_ops_without_arithmetic_and_of_several_peers(flops, tmp_path):
    rows = [row(1.0, 4.0), row(2.0, 3.0)]
    rows = [
        replace(r, flops=flops, peer=replace(r.peer, name=name)) for r, name in zip(rows, ("a, b", "c"), strict=True)
    ]
    limits = {"cpu": {"bytes": 10.0, "float32": 100.0}}
    drawn = {name for name, _ in pictures.draw(Run(HERE, limits, tuple(rows)), tmp_path)}
    assert drawn == {"peers-cpu", *(["roofline-cpu"] if flops else [])}
    assert "others" in (tmp_path / "peers-cpu.svg").read_text()


def test_other_machines_are_compared_by_the_peer_alone():
    now = Run(HERE | {"processor": "Q"}, {}, (row(9.0, 5.0),))
    assert list(results.compare(now, THEN).values()) == [Change(None, 0.8)]
    assert results.compare(now, Run(HERE, {}, ())) == {}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["foo"], "there is no op 'foo'"),
        (["--compare", "missing.json"], "cannot read missing.json"),
        (["--compare", "other.json"], "is not a file written by structops bench"),
        (["--report", "other.json/pictures"], "cannot write into other.json/pictures"),
        (["--json", "."], "is a folder"),
        (["--device", "tpu"], "--device must be one of cpu, cuda"),
        (["--backend", "fast"], "--backend must be one of native, triton, reference"),
        (["--backend", "triton", "--device", "cpu"], "cannot be measured on cpu"),
        (["--factor", "0.5"], "--factor must be at least 1"),
    ],
)
def test_bad_input_is_refused_before_anything_runs(arguments, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other.json").write_text("[]")
    monkeypatch.setattr(bench, "_measure", lambda *a: pytest.fail("ran"))
    outcome = CliRunner().invoke(app, arguments)
    assert outcome.exit_code == 2
    assert sentence in outcome.stderr


def test_from_end_to_end(tmp_path):
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --no-such-option\n")  # the user's own must not matter
    here = "import typer; from structops.cli.bench import command; typer.run(command)"
    arguments = ["batched_nms", "--quick", "--json", "out.json", "--report", "report", "--device", "cpu"]
    # pytest-benchmark measures nothing in a process that takes itself for one of several workers.
    alone = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")}
    command = [sys.executable, "-c", here, *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=alone)
    assert done.returncode == 0, done.stdout + done.stderr
    run = results.load(tmp_path / "out.json")
    assert len(run.rows) == sum(w.quick for w in workloads.workloads()["batched_nms"])
    for row in run.rows:
        assert row.title in done.stdout
        assert 0 < row.floor < row.minimum <= row.median
        assert row.peer.ratio > 0
    pictures = {"peers-cpu", "roofline-cpu"}
    assert {p.name for p in (tmp_path / "report").iterdir()} == {
        "index.md",
        *(f"{name}.{kind}" for name in pictures for kind in ("png", "svg")),
    }
    assert "node" not in json.loads((tmp_path / "out.json").read_text())["machine_info"]
