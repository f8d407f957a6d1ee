"""Matrix NMS against whole matrices in torch: ``structops bench matrix_nms``."""

import pytest


@pytest.mark.workloads("matrix_nms", "forward")
def test_matrix_nms(run, workload, setting):
    run(workload, setting)
