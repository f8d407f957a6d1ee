"""Fixed-shape NMS of a batch against a loop over torchvision's: ``structops bench nms_padded``."""

import pytest


@pytest.mark.workloads("nms_padded", "forward")
def test_nms_padded(run, workload, setting):
    run(workload, setting)


@pytest.mark.workloads("nms_padded", "sweep")
def test_cost_against_number_of_images(run, workload, setting):
    run(workload, setting)
