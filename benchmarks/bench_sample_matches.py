"""Sampling against torchvision: ``pytest benchmarks/bench_sample_matches.py``, or
``structops bench sample_matches``."""

import pytest


@pytest.mark.workloads("sample_matches", "forward")
def test_forward(run, workload, setting):
    run(workload, setting)


@pytest.mark.workloads("sample_matches", "sweep")
def test_cost_against_number_of_anchors(run, workload, setting):
    run(workload, setting)
