"""The list of faults fits the code: each can still be planted, and the test that is named is there."""

import re
from collections import Counter

import pytest

from tests.checkout import ROOT
from tests.faults.faults import FAULTS, Fault


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_can_be_planted(fault: Fault) -> None:
    planted = fault.planted((ROOT / fault.file).read_text())
    compile(planted, fault.file, "exec")


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_the_test_that_caught_a_fault_is_there_and_quick(fault: Fault) -> None:
    file, name, *_ = fault.caught_by.partition("[")[0].split("::")  # a class may inherit its tests
    source = (ROOT / file).read_text()
    found = re.search(rf"^(?:async )?(?:def|class) {name}\b", source, re.M)
    assert found, f"{file} has no {name}"
    marks = source[: found.start()].rpartition("\n\n\n")[2]
    assert not re.search(r"^@pytest\.mark\.(full|nightly)", marks, re.M), f"{name} is not of the quick tier"


def test_each_of_the_sixty_faults_has_a_name_of_its_own() -> None:
    assert len(FAULTS) == 60
    assert [name for name, times in Counter(fault.name for fault in FAULTS).items() if times > 1] == []
    assert [fault.name for fault in FAULTS if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)+", fault.name)] == []


def test_a_fault_whose_place_has_changed_is_refused() -> None:
    fault = Fault(name="x", file="x.py", before="a = 1\n", after="a = 2\n", says="", caught_by="")
    assert fault.planted("a = 1\nb = 1\n") == "a = 2\nb = 1\n"
    for source in ("b = 1\n", "a = 1\na = 1\n"):
        with pytest.raises(ValueError, match=r"'x' is [02] times in x\.py"):
            fault.planted(source)
