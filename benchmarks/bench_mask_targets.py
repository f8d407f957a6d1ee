"""Targets of a mask head: ``structops bench mask_targets polygon_mask_targets``.

Against torchvision's floating copy of the bitmaps and RoI Align, and against pycocotools, box by box.
"""

import pytest


@pytest.mark.workloads("mask_targets", "forward")
def test_mask_targets(run, workload, setting):
    run(workload, setting)


@pytest.mark.workloads("polygon_mask_targets", "forward")
def test_polygon_mask_targets(run, workload, setting):
    run(workload, setting)
