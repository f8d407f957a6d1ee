"""IoU of boxes against torchvision: ``pytest benchmarks/bench_box_iou.py``, or ``structops bench box_iou ...``."""

import pytest


@pytest.mark.workloads("box_iou", "forward")
def test_box_iou(run, workload, setting):
    run(workload, setting)


@pytest.mark.workloads("generalized_box_iou", "forward")
def test_generalized(run, workload, setting):
    run(workload, setting)


@pytest.mark.workloads("generalized_box_iou", "backward")
def test_generalized_backward(run, workload, setting):
    run(workload, setting)


@pytest.mark.workloads("distance_box_iou", "forward")
def test_distance(run, workload, setting):
    run(workload, setting)


@pytest.mark.workloads("complete_box_iou", "forward")
def test_complete(run, workload, setting):
    run(workload, setting)


@pytest.mark.workloads("complete_box_iou", "backward")
def test_complete_backward(run, workload, setting):
    run(workload, setting)


@pytest.mark.workloads("box_iou", "sweep")
def test_cost_against_number_of_boxes(run, workload, setting):
    run(workload, setting)
