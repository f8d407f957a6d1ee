"""Focal loss against torchvision: ``pytest benchmarks/bench_sigmoid_focal_loss.py``, or ``structops bench``."""

import pytest


@pytest.mark.workloads("sigmoid_focal_loss", "forward")
def test_forward(run, workload, setting):
    run(workload, setting)


@pytest.mark.workloads("sigmoid_focal_loss", "backward")
def test_forward_and_backward(run, workload, setting):
    run(workload, setting)


@pytest.mark.workloads("sigmoid_focal_loss", "sweep")
def test_cost_against_number_of_anchors(run, workload, setting):
    run(workload, setting)
