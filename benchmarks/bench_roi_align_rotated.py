"""RoI Align of rotated boxes against grid_sample, upright against RoI Align: ``structops bench roi_align_rotated``."""

import pytest


@pytest.mark.workloads("roi_align_rotated", "forward")
def test_forward(run, workload, setting):
    run(workload, setting)


@pytest.mark.workloads("roi_align_rotated", "backward")
def test_backward(run, workload, setting):
    run(workload, setting)
