"""IoU of rotated boxes against torchvision: ``pytest benchmarks/bench_box_iou_rotated.py``, or
``structops bench box_iou_rotated``."""

import pytest


@pytest.mark.workloads("box_iou_rotated", "forward")
def test_box_iou_rotated(run, workload, setting):
    run(workload, setting)


@pytest.mark.workloads("box_iou_rotated", "sweep")
def test_cost_against_number_of_boxes(run, workload, setting):
    run(workload, setting)
