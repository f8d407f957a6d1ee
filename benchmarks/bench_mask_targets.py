"""Targets of a mask head against torchvision's floating copy and RoI Align: ``structops bench mask_targets``."""

import pytest


@pytest.mark.workloads("mask_targets", "forward")
def test_mask_targets(run, workload, setting):
    run(workload, setting)
