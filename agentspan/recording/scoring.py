"""Scores that the recorded program gives its runs and spans: a record in the journal each."""

from typing import Any, NamedTuple

from agentspan import clock, forks
from agentspan.forks import page
from agentspan.model.changes import Put, unit_of
from agentspan.model.rows import ResourceType
from agentspan.model.scores import MAX_EXPLANATION, MAX_NAME, Source, judgement, score_row
from agentspan.recording.recorder import Recorder
from agentspan.text import cut, one_line


class Target(NamedTuple):
    """The target of a score: a run, or a span of a run; ids are "" where it was not recorded."""

    run_id: str
    type: ResourceType
    id: str


class Scored:
    """A run or a span that can be judged."""

    recorder: Recorder

    def score(
        self,
        name: str,
        value: float | None = None,
        *,
        label: str | None = None,
        explanation: str | None = None,
        by: Source = "code",
        identifier: str | None = None,
        withdraw: bool = False,
    ) -> None:
        """Judge it, at any time, also after its end; as durable as its spans.

        The newest score of a name counts; those before it are kept. Texts are redacted, and cut where they are too
        long. Never raises, and reads nothing.

        Args:
            name: what is judged, such as `reward`.
            value: a number, or True or False.
            label: a word, such as `good`.
            explanation: why.
            by: who judged: "code", "human" or "model".
            identifier: the judge, where several judge the same: of each the newest score counts.
            withdraw: take back the scores of this name and identifier; without value, label and explanation.
        """
        if not page[0]:
            forks.renew()
        recorder, (run_id, type_, id) = self.recorder, self._target()
        try:
            if not run_id or not id:
                recorder.faults.count_lost()
                return
            judged = judgement(
                _short(recorder, name),
                value,
                label=_short(recorder, label),
                explanation=None if explanation is None else cut(_text(recorder, explanation), MAX_EXPLANATION),
                source=by,
                identifier=_short(recorder, identifier),
                withdraw=withdraw,
            )
            row = score_row(recorder.ids.new(), run_id, type_, id, judged, clock.now())
            recorder.out.write(unit_of(Put(row, minted=True)))
        except Exception as error:
            recorder.faults.lose(error)

    def _target(self) -> Target:
        raise NotImplementedError


def _text(recorder: Recorder, value: Any) -> str:
    return recorder.capture.text(str(value))


def _short(recorder: Recorder, value: Any) -> str | None:
    return None if value is None else one_line(_text(recorder, value), MAX_NAME)
