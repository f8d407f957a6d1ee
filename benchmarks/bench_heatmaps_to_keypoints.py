"""Keypoint decoding against torchvision's loop over RoIs: ``structops bench heatmaps_to_keypoints``."""

import pytest


@pytest.mark.workloads("heatmaps_to_keypoints", "forward")
def test_heatmaps_to_keypoints(run, workload, setting):
    run(workload, setting)
