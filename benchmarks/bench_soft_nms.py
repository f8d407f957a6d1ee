"""Soft NMS against its definition in torch: ``structops bench soft_nms``."""

import pytest


@pytest.mark.workloads("soft_nms", "forward")
def test_soft_nms(run, workload, setting):
    run(workload, setting)
