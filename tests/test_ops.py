"""Every promise of every op, on every backend and device that this machine has: nothing here knows an op by name.

One test is one check of one case; it goes through the types and layouts that :func:`structops.testing.plan` lists.
"""

from collections import defaultdict

import pytest
from conftest import places

from structops import testing

JOBS = defaultdict(list)
for _device, _backend in places():
    for _spec in testing.specs().values():
        for _job in testing.plan(_spec, _backend, _device):
            JOBS[_job.spec.name, _job.check, _job.case.name, _backend, _device].append(_job)


@pytest.mark.parametrize("key", JOBS, ids="-".join)
def test_promise(key):
    results = [job.run() for job in JOBS[key]]
    failed = [str(result) for result in results if not result.passed]
    assert not failed, "\n".join(failed)
    reasons = {result.skipped for result in results if result.skipped}
    if len(reasons) == 1 and all(result.skipped for result in results):
        pytest.skip(reasons.pop())
