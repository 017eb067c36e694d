"""JUnit XML, which CI servers read: of checks and of evaluations."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple
from xml.etree import ElementTree

from agentspan.cli.output import Failed
from agentspan.text import printable

Result = Literal["pass", "fail", "inconclusive"]
_TAGS: dict[Result, str] = {"fail": "failure", "inconclusive": "skipped"}


class Test(NamedTuple):
    """One test of a report.

    Attributes:
        verdict: an inconclusive test is a skipped one.
        message: the sentence about a test that did not pass, with `details` below it.
        output: what the test printed.
        group: the name of its class.
    """

    name: str
    verdict: Result = "pass"
    message: str = ""
    details: str = ""
    output: str = ""
    group: str = "agentspan"


def write(path: str, suite: str, tests: Sequence[Test]) -> None:
    """Write a report of tests.

    Args:
        suite: the name of the suite.

    Raises:
        Failed: the file cannot be written.
    """
    failures, skipped = (sum(each.verdict == verdict for each in tests) for verdict in _TAGS)
    counts = {"tests": str(len(tests)), "failures": str(failures), "skipped": str(skipped)}
    root = ElementTree.Element("testsuite", {"name": suite, **counts})
    for each in tests:
        case = ElementTree.SubElement(root, "testcase", {"classname": each.group, "name": printable(each.name)})
        if each.verdict in _TAGS:
            ElementTree.SubElement(case, _TAGS[each.verdict], {"message": printable(each.message)}).text = each.details
        if each.output:
            ElementTree.SubElement(case, "system-out").text = each.output
    try:
        Path(path).write_bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True))
    except OSError as error:
        raise Failed(f"cannot write {path}: {error.strerror}") from None
