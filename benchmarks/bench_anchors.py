"""Anchors against torchvision's generators: ``pytest benchmarks/bench_anchors.py``, or ``structops bench``."""

import pytest


@pytest.mark.workloads("generate_anchors", "forward")
def test_generate_anchors(run, workload, setting):
    run(workload, setting)


@pytest.mark.workloads("default_boxes", "forward")
def test_default_boxes(run, workload, setting):
    run(workload, setting)


@pytest.mark.workloads("yolo_grid", "forward")
def test_yolo_grid(run, workload, setting):
    run(workload, setting)
