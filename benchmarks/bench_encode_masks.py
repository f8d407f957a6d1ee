"""Run-length encoding of masks against pycocotools: ``structops bench encode_masks``."""

import pytest


@pytest.mark.workloads("encode_masks", "forward")
def test_encode_masks(run, workload, setting):
    run(workload, setting)


@pytest.mark.workloads("encode_masks", "sweep")
def test_cost_against_number_of_masks(run, workload, setting):
    run(workload, setting)
