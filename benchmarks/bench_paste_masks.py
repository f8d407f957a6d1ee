"""Pasting the masks of detections against torchvision's: ``structops bench paste_masks``."""

import pytest


@pytest.mark.workloads("paste_masks", "forward")
def test_paste_masks(run, workload, setting):
    run(workload, setting)


@pytest.mark.workloads("paste_masks", "sweep")
def test_cost_against_number_of_detections(run, workload, setting):
    run(workload, setting)
