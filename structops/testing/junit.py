"""Results as JUnit XML, which CI systems show."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from xml.etree import ElementTree

from structops.testing.run import Result


def write(path: Path, results: Iterable[Result]) -> None:
    """One ``testcase`` a result, in one ``testsuite`` an op."""
    root = ElementTree.Element("testsuites", name="structops verify")
    suites: dict[str, ElementTree.Element] = {}
    totals: dict[str, list[float]] = {}
    for result in results:
        if result.op not in suites:
            suites[result.op] = ElementTree.SubElement(root, "testsuite", name=result.op)
        suite = suites[result.op]
        total = totals.setdefault(result.op, [0, 0, 0, 0.0])
        item = ElementTree.SubElement(
            suite,
            "testcase",
            classname=f"structops.{result.op}.{result.check}",
            name=f"{result.case}[{result.target}]",
            time=f"{result.seconds:.4f}",
        )
        total[0] += 1
        total[3] += result.seconds
        if result.message is not None:
            total[1] += 1
            text = _printable(result.message)
            ElementTree.SubElement(item, "failure", message=text.splitlines()[0][:500]).text = text
        elif result.skipped is not None:
            total[2] += 1
            ElementTree.SubElement(item, "skipped", message=_printable(result.skipped))
    for name, suite in suites.items():
        tests, failures, skipped, seconds = totals[name]
        suite.attrib |= {
            "tests": f"{tests:.0f}",
            "failures": f"{failures:.0f}",
            "errors": "0",
            "skipped": f"{skipped:.0f}",
            "time": f"{seconds:.3f}",
        }
    ElementTree.indent(root)
    path.parent.mkdir(parents=True, exist_ok=True)
    ElementTree.ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)


def _printable(text: str) -> str:
    """Without the control characters that XML cannot hold; never empty."""
    return re.sub(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "?", text) or "?"
