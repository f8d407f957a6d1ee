"""Matching against torchvision: ``pytest benchmarks/bench_match_boxes.py``, or ``structops bench match_boxes``."""

import pytest


@pytest.mark.workloads("match_boxes", "forward")
def test_forward(run, workload, setting):
    run(workload, setting)


@pytest.mark.workloads("match_boxes", "sweep")
def test_cost_against_number_of_ground_truths(run, workload, setting):
    run(workload, setting)
