"""Position-sensitive RoI Align against torchvision: ``pytest benchmarks/bench_ps_roi_align.py``, or ``structops bench
ps_roi_align``.
"""

import pytest


@pytest.mark.workloads("ps_roi_align", "forward")
def test_forward(run, workload, setting):
    run(workload, setting)


@pytest.mark.workloads("ps_roi_align", "backward")
def test_backward(run, workload, setting):
    run(workload, setting)


@pytest.mark.workloads("ps_roi_align", "sweep")
def test_cost_against_number_of_rois(run, workload, setting):
    run(workload, setting)
