"""Region proposals against torchvision's RPN after its head: ``structops bench generate_proposals``."""

import pytest


@pytest.mark.workloads("generate_proposals", "forward")
def test_generate_proposals(run, workload, setting):
    run(workload, setting)


@pytest.mark.workloads("generate_proposals", "sweep")
def test_cost_against_number_of_images(run, workload, setting):
    run(workload, setting)
