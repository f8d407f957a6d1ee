"""RoI Align along time against torchvision on a map of one row: ``structops bench roi_align_1d``."""

import pytest


@pytest.mark.workloads("roi_align_1d", "forward")
def test_forward(run, workload, setting):
    run(workload, setting)


@pytest.mark.workloads("roi_align_1d", "backward")
def test_backward(run, workload, setting):
    run(workload, setting)
