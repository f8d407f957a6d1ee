"""RoI Pool against torchvision: ``pytest benchmarks/bench_roi_pool.py``, or ``structops bench roi_pool``."""

import pytest


@pytest.mark.workloads("roi_pool", "forward")
def test_forward(run, workload, setting):
    run(workload, setting)


@pytest.mark.workloads("roi_pool", "backward")
def test_backward(run, workload, setting):
    run(workload, setting)


@pytest.mark.workloads("roi_pool", "sweep")
def test_cost_against_number_of_rois(run, workload, setting):
    run(workload, setting)
