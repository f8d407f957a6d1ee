"""NMS along time against torchvision on boxes one unit high: ``structops bench nms_1d``."""

import pytest


@pytest.mark.workloads("nms_1d", "forward")
def test_nms_1d(run, workload, setting):
    run(workload, setting)
