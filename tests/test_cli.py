"""The commands ``verify`` and ``info``, from end to end."""

import re
import xml.etree.ElementTree as ElementTree

import pytest

typer = pytest.importorskip("typer", reason="typer is not installed")
pytest.importorskip("rich", reason="rich is not installed")

import torch  # noqa: E402
from typer.testing import CliRunner  # noqa: E402

from structops.cli import info, verify  # noqa: E402


def run(command, *arguments):
    app = typer.Typer()
    app.command()(command)
    return CliRunner().invoke(app, [str(a) for a in arguments])


def test_verify_passes_and_writes_junit(tmp_path):
    file = tmp_path / "results.xml"
    arguments = (
        "nms",
        "roi_align",
        "--backend",
        "native",
        "--device",
        "cpu",
        "--dtype",
        "float32",
        "--case",
        "no-boxes",
    )
    done = run(verify.command, *arguments, "--junit", file)
    assert done.exit_code == 0, done.output
    assert re.search(r"\d+ checks in .* 0 failed", done.output)
    assert {suite.get("name") for suite in ElementTree.parse(file).getroot()} == {"nms", "roi_align"}


def test_verify_names_the_failing_case(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(
        "def first_box(boxes, scores, iou_threshold):\n"
        "    return scores.argsort(descending=True)[:1]\n"
        "def broken(boxes): pass\n"
    )
    monkeypatch.chdir(tmp_path)
    arguments = ("nms", "--device", "cpu", "--dtype", "float64", "--case", "touching")
    done = run(verify.command, *arguments, "--candidate", "mine:first_box")
    assert done.exit_code == 1
    assert re.search(r"FAILED nms values, case touching.*: 1 indices, expected 64", done.output)
    done = run(verify.command, *arguments, "--candidate", "mine:broken")
    assert done.exit_code == 1
    assert "raised TypeError" in done.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["softmax"], "there is no op 'softmax'; there are"),
        (["--backend", "cuda"], "--backend must be one of native, triton, reference"),
        (["--device", "tpu"], "--device must be one of cpu, cuda"),
        (["--dtype", "int8"], "--dtype must be one of float16"),
        (["--case", "no-such-case"], "there is no case 'no-such-case'"),
        (["--case", "box-haed"], "did you mean box-head"),
        (["--tolerance", "-1"], "--tolerance must be 0 or more"),
        (["--junit", "missing/results.xml"], "--junit: there is no folder missing"),
        (["--candidate", "no_such_module:nms"], "there is no module 'no_such_module'"),
        (["--candidate", "torch:no_such_function", "nms"], "has no 'no_such_function'"),
        (["--candidate", "torch:relu"], "name the op whose signature torch:relu has"),
        (["--candidate", "torch:relu", "nms", "roi_align"], "has the signature of one op"),
        (["--candidate", "torch:relu", "nms", "--backend", "native"], "instead of a backend"),
    ],
)
def test_verify_explains_bad_requests(arguments, message):
    done = run(verify.command, *arguments)
    assert done.exit_code == 2
    assert message in done.output


def test_info():
    done = run(info.command)
    assert done.exit_code == 0, done.output
    for part in ("structops", "torch", torch.__version__, "triton", "python", "simd", "cpu native", "usable"):
        assert part in done.output
