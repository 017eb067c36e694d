"""Of the secrets of a corpus nearly none is stored, and none of its harmless look-alikes is changed."""

import random

import pytest

from tests.recording.secrets import forms
from tests.recording.secrets.corpus import HARMLESS, SECRETS, cases, is_kept_out, stored

WANTED = 0.95


def test_nearly_all_secrets_are_kept_out() -> None:
    secrets = cases(SECRETS)
    missed = [case for case, shown in zip(secrets, stored(secrets), strict=True) if not is_kept_out(case, shown)]
    assert len(secrets) >= 120
    assert len(missed) <= (1 - WANTED) * len(secrets), [case.kind for case in missed]


def test_what_only_looks_like_a_secret_stays_as_it_is() -> None:
    harmless = cases(HARMLESS)
    changed = [case for case, shown in zip(harmless, stored(harmless), strict=True) if shown != case.payload]
    assert len(harmless) >= 120
    assert changed == []


def test_the_published_forms_of_keys_are_kept_out() -> None:
    drawn = [*forms.secrets(random.Random(17))]
    missed = {case.kind for case, shown in zip(drawn, stored(drawn), strict=True) if not is_kept_out(case, shown)}
    kinds = {case.kind for case in drawn}
    assert len(kinds) >= 110
    assert len(missed) <= (1 - WANTED) * len(kinds), sorted(missed)


@pytest.mark.parametrize(
    ("kinds", "fewest"), [pytest.param(forms.KEYS, 60, id="new"), pytest.param(forms.OLD | forms.NAMED, 75, id="old")]
)
def test_keys_are_kept_out_in_json_environments_headers_urls_logs_and_yaml(kinds: dict[str, str], fewest: int) -> None:
    drawn = [*forms.in_settings(kinds, random.Random(17))]
    missed = [case.kind for case, shown in zip(drawn, stored(drawn), strict=True) if not is_kept_out(case, shown)]
    assert len(kinds) >= fewest
    assert len(missed) <= (1 - WANTED) * len(drawn), sorted(set(missed))


def test_texts_that_only_name_a_secret_stay_as_they_are() -> None:
    drawn = [*forms.harmless(random.Random(17))]
    changed = [case for case, shown in zip(drawn, stored(drawn), strict=True) if shown != {"input": case.payload}]
    assert len(forms.PLAIN) >= 60
    assert changed == []
