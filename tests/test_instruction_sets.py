"""CPU kernels of the instruction sets below the machine's best, against the best, which all other tests run on."""

import functools
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import structops
from structops import testing
from structops.testing.checks import forward_backward
from structops.testing.run import arguments_for, tensors_of
from structops.testing.tolerances import distance, scale_of

LEVELS = ("baseline", "avx2", "avx512")
pytestmark = pytest.mark.skipif(not structops._libraries.loaded("_C"), reason="_C is not built")


def jobs() -> list[testing.Job]:
    """Every case but the large in every type; layouts go round, so that every type meets all of them."""
    found = []
    for spec in testing.specs().values():
        layouts = testing.layouts_of(spec)
        for turn, case in enumerate(spec.tagged(without=("large",))):
            for i, dtype in enumerate(spec.dtypes):
                target = testing.Target("native", "cpu", dtype, layouts[(turn + i) % len(layouts)])
                found.append(testing.Job("values", spec, case, target))
    return found


@functools.cache
def results() -> list[list[torch.Tensor]]:
    """Output and gradients of each job."""
    return [forward_backward(job.spec, job.case, job.target) for job in jobs()]


def child(level: str, *arguments: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "STRUCTOPS_SIMD": level}
    command = [sys.executable, *arguments]
    return subprocess.run(command, env=environment, cwd=Path(__file__).parent, capture_output=True, text=True)


@pytest.mark.parametrize("level", LEVELS)
def test_values(level, tmp_path):
    about = dict(line.split("=", 1) for line in torch.ops.structops._build_info().splitlines())
    best = about["simd"]
    if LEVELS.index(level) >= LEVELS.index(best):
        pytest.skip(f"{best} is what the other tests run on")
    done = child(level, __file__, str(tmp_path / "results.pt"))
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.strip() == level
    for job, found, wanted in zip(jobs(), torch.load(tmp_path / "results.pt"), results(), strict=True):
        for got, want in zip(found, wanted, strict=True):
            scale = scale_of(want, *(t for t in tensors_of(arguments_for(job.spec, job.case, job.target))))
            problem = distance(got, want, scale, want.dtype)[1] if want.is_floating_point() else None
            assert problem is None, f"{job}: {problem}"
            assert want.is_floating_point() or torch.equal(got, want), job


def test_level_must_be_known():
    code = "import torch, structops; structops.ops.nms(torch.rand(2, 4), torch.rand(2), 0.5)"
    done = child("sse9", "-c", code)
    assert done.returncode != 0
    assert "STRUCTOPS_SIMD must be baseline, avx2 or avx512, got sse9" in done.stderr


if __name__ == "__main__":
    torch.save(results(), sys.argv[1])
    print(dict(line.split("=", 1) for line in torch.ops.structops._build_info().splitlines())["simd"])
