"""NMS of rotated boxes against a loop over torchvision's IoU: ``pytest benchmarks/bench_nms_rotated.py``, or
``structops bench nms_rotated batched_nms_rotated``."""

import pytest


@pytest.mark.workloads("nms_rotated", "forward")
def test_nms_rotated(run, workload, setting):
    run(workload, setting)


@pytest.mark.workloads("batched_nms_rotated", "forward")
def test_batched_nms_rotated(run, workload, setting):
    run(workload, setting)


@pytest.mark.workloads("nms_rotated", "sweep")
def test_cost_against_number_of_boxes(run, workload, setting):
    run(workload, setting)
