"""Sixty faults that the tests must catch: one place each, that a change of the code could have got wrong.

A new version of the tests, or another design of the code, is held against them: it must catch all of them. Where the
code of a fault moves or is written anew, give the fault its new place, and keep its sentence. `python -m tests.faults`
plants them, one after the other, in a copy of the checkout, and says which test caught each.

Drawn on 28 November 2026 with Cosmic Ray 8.7.0, which lists the places where a file can be mutated:

- Files: `agentspan/` `model` (6 faults), `recording` (8), `journal` (7), `recovery` (6), `storage` (7, at most two of
  them of PostgreSQL), `operations` (6). Each folder's mutants were sorted by file, operator and place, shuffled with
  `random.Random(20250611)`, and tried in that order, until enough were caught.
- Operators: `and` for `or` and back; `not` added to a condition or taken away; True for False and back; `==` and `!=`,
  `is` and `is not`, `<` and `<=`, `>` and `>=` for each other; `+` and `-` for each other; `break` and `continue` for
  each other; a loop that never runs.
- Not used, because most of their mutants are noise: other pairs of comparisons and of arithmetic (they fail at once, or
  mean the same), other numbers (sizes and limits that were measured), other exceptions (a name that is not defined),
  decorators taken away, variables replaced.
- Skipped: a mutant of an annotation, or of an `assert` for the type checker; one that can only raise TypeError; one in
  a line that was drawn before; a third one in a file; one with which agentspan cannot be imported, or record a run with
  one span in a with-block and read it back, and one with which each statement to PostgreSQL fails. Nearly every test
  finds those.
- Put aside: a mutant that the test files nearest to its code did not catch within a minute. Some mean the same as the
  code, some cost only time, some are caught by other tests only, and some are gaps.

The last twenty are written by hand: of budgets (9), evaluation (8) and the decoders of sessions (3).
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A place in the code, with what stands there and what is planted.

    Attributes:
        name: short, in kebab-case.
        file: its path in the checkout.
        before: the text that is replaced. The file has it exactly once.
        after: the text that is planted.
        says: what goes wrong for a user, or for the data.
        caught_by: the id of a test that fails. Only a hint where to look first.
    """

    name: str
    file: str
    before: str
    after: str
    says: str
    caught_by: str

    def planted(self, source: str) -> str:
        """Return a file's source with the fault.

        Raises:
            ValueError: the source does not have its place exactly once.
        """
        found = source.count(self.before)
        if found != 1:
            raise ValueError(f"the place of {self.name!r} is {found} times in {self.file}: write it anew")
        return source.replace(self.before, self.after)


FAULTS: tuple[Fault, ...] = (
    Fault(
        name="unexplained-score-breaks-the-span",
        file="agentspan/model/scores.py",
        before='None if why is None else members[why], "code", None',
        after='None if why is not None else members[why], "code", None',
        says="A quality score that has no explanation cannot be computed, so the request that ends its span fails.",
        caught_by="tests/api/test_quality.py::test_a_payload_is_set_by_name_and_others_stay[memory]",
    ),
    Fault(
        name="half-a-wrapper-counts-as-sensitive",
        file="agentspan/model/columns.py",
        before='return "$sensitive" in value and "value" in value',
        after='return "$sensitive" in value or "value" in value',
        says=(
            'Any object with a key "value" counts as a sensitive value, so a payload that was never marked is '
            "unwrapped or masked."
        ),
        caught_by=(
            "tests/api/test_sensitive.py::"
            "test_without_a_wrapper_the_payload_stays_and_the_flag_is_what_was_sent[memory-payload2]"
        ),
    ),
    Fault(
        name="sensitive-values-are-never-replaced",
        file="agentspan/model/columns.py",
        before="if is_wrapper(value):",
        after="if not is_wrapper(value):",
        says="A value that is marked as sensitive is stored as it was sent, instead of masked.",
        caught_by="tests/api/test_sensitive.py::test_a_value_is_replaced_and_its_type_and_labels_stay[memory]",
    ),
    Fault(
        name="an-end-replaces-a-close-twice",
        file="agentspan/model/changes.py",
        before="if stored.closed_by not in CLOSERS or stored.ended_late:",
        after="if stored.closed_by not in CLOSERS and stored.ended_late:",
        says=(
            "A span that was closed for a dead process, and then got its late end, takes a second end that replaces "
            "the first."
        ),
        caught_by="tests/storage/test_contract.py::TestMemory::test_an_end_replaces_a_close_once",
    ),
    Fault(
        name="a-finished-span-takes-no-time",
        file="agentspan/model/spans.py",
        before='if status == "cancelled" or started_at is None:',
        after='if not status == "cancelled" or started_at is None:',
        says="A span that completes gets its end as its start, and a duration of 0 ms.",
        caught_by=(
            "tests/api/test_agent_spans.py::test_a_finish_up_to_a_minute_before_the_start_counts_as_the_start[memory]"
        ),
    ),
    Fault(
        name="numbers-are-no-scores",
        file="agentspan/model/scores.py",
        before="is_number = isinstance(value, SupportsFloat) and not isinstance(value, str)",
        after="is_number = isinstance(value, SupportsFloat) and isinstance(value, str)",
        says="A score whose value is a number is refused.",
        caught_by="tests/api/test_scores.py::test_a_run_and_a_span_are_judged_by_their_id[memory]",
    ),
    Fault(
        name="no-folder-is-searched-for-git",
        file="agentspan/recording/git_commit.py",
        before="for _ in range(MAX_FOLDERS):",
        after="for _ in []:",
        says="A run is recorded without the git commit of its checkout: no folder is searched.",
        caught_by="tests/recording/test_git_commit.py::test_a_commit_of_sha_256_is_one",
    ),
    Fault(
        name="a-deleted-file-is-not-noticed",
        file="agentspan/recording/recorder.py",
        before="run.stored_in == recorder.destination.identity_now(storage)",
        after="run.stored_in != recorder.destination.identity_now(storage)",
        says=(
            "A program whose database file was deleted goes on writing into the deleted file, so the rest of its run "
            "is lost."
        ),
        caught_by=(
            "tests/recording/test_deleted_files.py::test_a_run_whose_file_is_deleted_goes_on_in_a_new_one[commit]"
        ),
    ),
    Fault(
        name="no-folder-counts-for-the-commit",
        file="agentspan/recording/git_commit.py",
        before="for folder in folders:",
        after="for folder in []:",
        says=(
            "A run is recorded without the git commit, because neither the script's folder nor the working directory "
            "counts."
        ),
        caught_by="tests/recording/test_git_commit.py::test_a_commit_of_sha_256_is_one",
    ),
    Fault(
        name="histories-are-captured-whole-each-time",
        file="agentspan/recording/capture/capture.py",
        before="if type(item) is not list or len(item) < 2 or type(key) is not str or names_credential(key):",
        after="if type(item) is not list or len(item) < 2 or type(key) is str or names_credential(key):",
        says=(
            "The messages of an LLM call are captured anew with each call, so a conversation costs more with each of "
            "its turns."
        ),
        caught_by="tests/recording/test_repeats.py::test_messages_that_are_objects_are_captured_once",
    ),
    Fault(
        name="a-rule-of-ones-own-is-refused",
        file="agentspan/recording/settings.py",
        before='if redact is not None and redact != "credentials" and not callable(redact):',
        after='if redact is not None and redact != "credentials" and callable(redact):',
        says="`redact=` refuses a function of the program's own, and takes what is no function.",
        caught_by="tests/recording/test_redaction.py::test_ones_own_rule_is_asked_for_every_value",
    ),
    Fault(
        name="the-reason-why-a-value-is-missing-is-lost",
        file="agentspan/recording/capture/values.py",
        before='return {NOT_JSON: mark if reason is None else {**mark, "reason": reason}}',
        after='return {NOT_JSON: mark if reason is not None else {**mark, "reason": reason}}',
        says="The mark of a value that is no JSON does not tell why the value could not be read.",
        caught_by="tests/recording/test_values.py::test_fields_that_cannot_be_read_do_not_cost_the_others",
    ),
    Fault(
        name="waiting-records-look-fresh",
        file="agentspan/recording/sinks/drain.py",
        before="return (disk.monotonic_ns() - self._moved_ns) / 1e9 if self.journaled else 0.0",
        after="return (disk.monotonic_ns() - self._moved_ns) / 1e9 if not self.journaled else 0.0",
        says="Health tells of an age of 0 s while records wait for the storage, however long they have waited.",
        caught_by="tests/recording/test_backlog.py::test_health_tells_how_much_waits_since_when_and_why",
    ),
    Fault(
        name="spans-do-not-nest-where-they-were-propagated",
        file="agentspan/recording/steps.py",
        before="if luggage.span is not None:",
        after="if luggage.span is None:",
        says=(
            "A span in a function that was sent to another thread or process lies beside the span that sent it, not "
            "below."
        ),
        caught_by=(
            "tests/recording/test_propagation.py::test_any_callable_nests_where_it_was_propagated[decorated "
            "function-pickled]"
        ),
    ),
    Fault(
        name="two-threads-take-one-place",
        file="agentspan/journal/log.py",
        before="if self.sequence + 1 == sequence and segment is not None:",
        after="if self.sequence + 1 == sequence or segment is not None:",
        says=(
            "Where locks guard the journal, two threads that append at the same moment write to the same place, and "
            "a record is lost."
        ),
        caught_by="tests/journal/test_log.py::test_each_record_comes_out_once_in_its_threads_order[written-<lambda>]",
    ),
    Fault(
        name="empty-journal-folders-stay",
        file="agentspan/journal/spool.py",
        before="if refusal(folder) is not None:",
        after="if refusal(folder) is None:",
        says="Files that no process needs stay in the journal's folder, and so does the folder itself.",
        caught_by="tests/journal/test_recording.py::test_a_link_to_the_file_is_the_file",
    ),
    Fault(
        name="length-without-the-header",
        file="agentspan/journal/records.py",
        before="return HEADER + int(length) if magic == MAGIC else 0",
        after="return HEADER - int(length) if magic == MAGIC else 0",
        says=(
            "The size of a journal record is computed without its header, so a record that is cut off is read as whole."
        ),
        caught_by=(
            "tests/journal/test_records.py::test_a_record_that_is_cut_off_behind_a_hole_is_read_with_the_next_part"
        ),
    ),
    Fault(
        name="a-refused-record-counts-as-written",
        file="agentspan/journal/log.py",
        before=(
            "                if not self._has_room(length) and self._next_segment(length) is None:\n"
            "                    return False"
        ),
        after=(
            "                if not self._has_room(length) and self._next_segment(length) is None:\n"
            "                    return True"
        ),
        says="A record that the disk has no room for counts as written to the journal, and is lost without a word.",
        caught_by=(
            "tests/journal/test_full_disks.py::"
            "test_a_full_disk_costs_nothing_and_when_there_is_room_recording_goes_on[1m]"
        ),
    ),
    Fault(
        name="reading-ends-at-a-hole",
        file="agentspan/journal/records.py",
        before="continue\n        start = position + HEADER",
        after="break\n        start = position + HEADER",
        says="Records of a program's own journal that come after a hole are never stored.",
        caught_by="tests/journal/test_records.py::test_a_hole_is_passed_over",
    ),
    Fault(
        name="a-new-element-counts-as-recorded",
        file="agentspan/journal/records.py",
        before="if known != epoch:",
        after="if known == epoch:",
        says=(
            "An element of a history that no journal record has yet is only referred to, not written, so the payload "
            "is lost."
        ),
        caught_by="tests/journal/test_parts.py::test_what_is_read_is_what_was_captured",
    ),
    Fault(
        name="histories-are-recorded-empty",
        file="agentspan/journal/records.py",
        before="places = [element.place for element in elements]",
        after="places = [element.place for element in elements[:0]]",
        says=(
            "The elements of a history are left out of the journal's records, so the payload cannot be put together "
            "again."
        ),
        caught_by="tests/journal/test_parts.py::test_what_is_read_is_what_was_captured",
    ),
    Fault(
        name="dead-writers-are-never-recognised",
        file="agentspan/journal/writers.py",
        before="if id is None:",
        after="if id is not None:",
        says="No process counts as dead, so spans that a killed program left open are never closed.",
        caught_by=(
            "tests/journal/test_adopting.py::test_the_doctor_reads_what_a_dead_program_left_before_it_closes_anything"
        ),
    ),
    Fault(
        name="a-process-that-is-gone-counts-as-alive",
        file="agentspan/journal/writers.py",
        before="except ProcessLookupError:\n            return False",
        after="except ProcessLookupError:\n            return True",
        says="A program whose process is gone counts as alive, so what it left open is never closed.",
        caught_by=(
            "tests/journal/test_adopting.py::test_the_doctor_reads_what_a_dead_program_left_before_it_closes_anything"
        ),
    ),
    Fault(
        name="serve-looks-for-a-journal-that-is-not-there",
        file="agentspan/journal/opening.py",
        before="if can.spool is not None:\n        return can.spool.seeing(",
        after="if can.spool is None:\n        return can.spool.seeing(",
        says=(
            "`agentspan serve` fails at a database file: it looks for the journal that only a storage on a server "
            "has in front of it."
        ),
        caught_by="tests/serve/test_adopting.py::test_what_a_dead_program_left_is_in_the_first_answer",
    ),
    Fault(
        name="refused-changes-are-not-kept",
        file="agentspan/journal/committer.py",
        before="if (row.subject, row.wanted) not in self._kept:",
        after="if not (row.subject, row.wanted) not in self._kept:",
        says="A change that the storage refuses is not kept as a refused change, so nobody can see what was lost.",
        caught_by=(
            "tests/recording/test_termination.py::"
            "test_a_span_that_another_process_finished_first_is_kept_as_this_program_saw_it"
        ),
    ),
    Fault(
        name="a-refused-change-counts-as-stored",
        file="agentspan/journal/committer.py",
        before="if is_stored(unit, refused):\n            return self._settle_repeated(unit, refused)",
        after=("if not is_stored(unit, refused):\n            return self._settle_repeated(unit, refused)"),
        says="A change that the storage refused counts as stored already, and vanishes without a word.",
        caught_by=(
            "tests/recording/test_termination.py::"
            "test_a_span_that_another_process_finished_first_is_kept_as_this_program_saw_it"
        ),
    ),
    Fault(
        name="adoption-skips-a-journal-that-is-free",
        file="agentspan/journal/adopting.py",
        before="if left is None:",
        after="if left is not None:",
        says=(
            "The journal of a dead program is skipped by a process that could adopt it, so its records are not stored."
        ),
        caught_by=(
            "tests/journal/test_adopting.py::test_who_meets_another_that_adopts_a_segment_leaves_what_follows_it"
        ),
    ),
    Fault(
        name="new-texts-are-not-searchable",
        file="agentspan/storage/text_search.py",
        before="pieces += (text[copied : part.start], '\"\"' if is_said else text[part.start : part.end])",
        after="pieces += (text[copied : part.start], '\"\"' if not is_said else text[part.start : part.end])",
        says=(
            "The full-text index has the texts that earlier spans of a run had already, and leaves out those that "
            "are new."
        ),
        caught_by="tests/storage/test_first_occurrence.py::test_a_payload_without_parts_is_json_without_their_values",
    ),
    Fault(
        name="plain-spans-count-as-aggregates",
        file="agentspan/storage/sums.py",
        before="self.is_aggregate = False",
        after="self.is_aggregate = True",
        says=(
            "Statistics mark every group of spans as one that has aggregates, whose tokens and costs are counted "
            "elsewhere."
        ),
        caught_by="tests/storage/test_contract.py::TestSQLite::test_analytics_answer_as_reading_row_by_row_does",
    ),
    Fault(
        name="every-error-is-a-damaged-payload",
        file="agentspan/storage/sqlite/driver.py",
        before='if "user-defined function" in str(error):  # agentspan',
        after='if not "user-defined function" in str(error):  # agentspan',
        says="An error of SQLite, such as a missing table, is reported as a payload that cannot be read.",
        caught_by="tests/storage/test_driver_errors.py::test_a_trigger_that_forbids_it[apply one]",
    ),
    Fault(
        name="open-spans-are-missing-in-the-index",
        file="agentspan/storage/sqlite/index/span_sums.py",
        before="if new < until - after:  # else all of these spans are finished",
        after="if not new < until - after:  # else all of these spans are finished",
        says="Statistics from the index beside the file leave out spans that are still open.",
        caught_by="tests/storage/test_index.py::test_answers_are_exact_whatever_happened[0]",
    ),
    Fault(
        name="a-new-history-has-nothing-before-it",
        file="agentspan/storage/sqlite/contents.py",
        before="known = [] if before is None else [*before.numbers[: piece.known]]",
        after="known = [] if before is not None else [*before.numbers[: piece.known]]",
        says="The first payload with a history cannot be stored: it is taken for the continuation of another one.",
        caught_by="tests/storage/test_contents.py::test_a_growing_history_is_a_range_and_each_message_one_row",
    ),
    Fault(
        name="postgres-does-not-tell-what-was-in-the-way",
        file="agentspan/storage/postgres/writes.py",
        before='return Refused("missing", other[1] if other is not None else None)',
        after='return Refused("missing")',
        says="PostgreSQL refuses a change of a row that is of another type without saying which row has that id.",
        caught_by=(
            "tests/storage/test_contract.py::TestPostgres::test_random_units_have_the_outcomes_that_they_have_in_memory"
        ),
    ),
    Fault(
        name="a-new-file-gives-no-pages-back",
        file="agentspan/storage/sqlite/opening.py",
        before=("if not has_tables:  # only an empty file"),
        after="if has_tables:  # only an empty file",
        says="A new database file cannot become smaller in steps after runs were deleted: it is not created for that.",
        caught_by="tests/storage/test_contract.py::TestSQLite::test_a_file_grows_and_shrinks",
    ),
    Fault(
        name="schemas-by-name-are-refused",
        file="agentspan/api/agents.py",
        before="if not isinstance(found, Mapping) or not all(isinstance(name, str) for name in found):",
        after="if isinstance(found, Mapping) or not all(isinstance(name, str) for name in found):",
        says="A schema version that lists its schemas by name, as it should, is refused.",
        caught_by="tests/api/test_unusable_schemas.py::test_a_schema_is_stored_as_it_was_sent[memory-schema0]",
    ),
    Fault(
        name="a-list-needs-its-pagination",
        file="agentspan/api/operation.py",
        before="if page is not None and not isinstance(page, Mapping):",
        after="if page is None and not isinstance(page, Mapping):",
        says="A list without a pagination is refused, and one whose pagination is no object is not.",
        caught_by="tests/api/test_bulk.py::test_a_page_that_is_none_is_refused[memory-3]",
    ),
    Fault(
        name="schema-errors-name-no-details",
        file="agentspan/api/checks.py",
        before="if isinstance(error, ValidationErrors):",
        after="if not isinstance(error, ValidationErrors):",
        says=(
            "An invalid payload in a bulk request is reported under a field that the request does not have, without "
            '"details.".'
        ),
        caught_by=(
            "tests/api/test_bulk.py::test_the_first_refusal_is_the_last_output_and_what_came_before_stays[memory]"
        ),
    ),
    Fault(
        name="a-given-id-counts-as-minted",
        file="agentspan/api/spans.py",
        before="minted=id is None,",
        after="minted=id is not None,",
        says=(
            "A span whose client chose its id is stored as if nobody else could have used that id, and the other way "
            "round."
        ),
        caught_by="tests/api/test_idempotency.py::test_a_keyed_create_under_a_known_parent_is_four_statements",
    ),
    Fault(
        name="every-span-counts-as-sensitive",
        file="agentspan/api/spans.py",
        before='if marks or sent.get("sensitive_encoding"):',
        after='if marks or not sent.get("sensitive_encoding"):',
        says="A finished span without any sensitive value is flagged as having one, and one that has some is not.",
        caught_by=(
            "tests/api/test_sensitive.py::"
            "test_without_a_wrapper_the_payload_stays_and_the_flag_is_what_was_sent[memory-payload0]"
        ),
    ),
    Fault(
        name="summaries-show-the-wrapper",
        file="agentspan/api/context.py",
        before="return Admitted(text, columns.unwrapped(plain) if is_marked else plain, is_marked)",
        after="return Admitted(text, columns.unwrapped(plain) if not is_marked else plain, is_marked)",
        says="Summaries and checks of a sensitive payload see the wrapper instead of the value in it.",
        caught_by="tests/api/test_sensitive.py::test_a_value_is_replaced_and_its_type_and_labels_stay[memory]",
    ),
    Fault(
        name="a-killed-child-took-no-step",
        file="agentspan/recording/spending.py",
        before="            call.made += 1\n        self._share()\n        return None",
        after="            call.made += 1\n        return None",
        says="The last step of a child that was killed does not count in the budget of the others.",
        caught_by="tests/recording/test_budgets.py::test_a_forked_child_goes_on_with_the_sums_of_its_parent",
    ),
    Fault(
        name="a-living-process-loses-its-place",
        file="agentspan/recording/budgets.py",
        before="if owner in (0, pid) or not _is_alive(owner):",
        after="if owner in (0, pid) or _is_alive(owner):",
        says="A forked process takes the place of a living one in the shared sums of a budget.",
        caught_by="tests/recording/test_budgets.py::test_what_one_of_a_family_was_allowed_or_ended_leaves_the_sums",
    ),
    Fault(
        name="a-childs-sums-count-twice",
        file="agentspan/recording/spending.py",
        before="self._foreign, self._seen, self._kept, self._place, self._pid = used,",
        after="self._foreign, self._seen, self._kept, self._place, self._pid = self._foreign,",
        says="A forked child counts what its parent used as its own, too: the family stops too early.",
        caught_by="tests/recording/test_budgets.py::test_a_forked_child_goes_on_with_the_sums_of_its_parent",
    ),
    Fault(
        name="steps-that-cannot-be-stopped-miss-the-outer-budget",
        file="agentspan/recording/spending.py",
        before="            self.above.count()",
        after="            pass",
        says="Steps that cannot be stopped do not count in the budget of an outer run.",
        caught_by="tests/recording/test_budgets.py::test_steps_that_cannot_be_stopped_count_in_an_outer_budget_too",
    ),
    Fault(
        name="a-negative-cost-gives-room",
        file="agentspan/schemas/aliases.py",
        before="0 <= value <= MOST_USD",
        after="-MOST_USD <= value <= MOST_USD",
        says="A tool that reports a negative cost gives a run more room.",
        caught_by="tests/schemas/test_meaning.py::test_what_is_no_number_or_too_large_is_no_cost",
    ),
    Fault(
        name="usage-of-the-payload-is-free",
        file="agentspan/recording/spending.py",
        before="if is_model or has_usage(result) or has_usage(span.payload):",
        after="if is_model or has_usage(result):",
        says="Usage that stands in the payload of a step does not count.",
        caught_by="tests/recording/test_budgets.py::test_usage_in_the_payload_counts",
    ),
    Fault(
        name="what-limits-cut-is-free",
        file="agentspan/recording/budgets.py",
        before="_size(read_payload(text)[0]) if TRUNCATED in text",
        after="_size(read_payload(text)[0]) if TRUNCATED not in text",
        says="A call without usage is estimated by what the limits left of its text.",
        caught_by="tests/recording/test_budgets.py::test_a_call_without_usage_is_estimated_by_its_whole_text",
    ),
    Fault(
        name="a-budget-needs-both-sums-spent",
        file="agentspan/recording/spending.py",
        before='if self.usd >= self.most["usd"] or self.tokens >= self.most["tokens"]:',
        after='if self.usd >= self.most["usd"] and self.tokens >= self.most["tokens"]:',
        says="A budget of dollars is passed as long as its tokens last.",
        caught_by="tests/recording/test_budgets.py::test_a_spent_budget_raises_in_place_of_the_next_step",
    ),
    Fault(
        name="one-repetition-too-many",
        file="agentspan/recording/spending.py",
        before="if call is not None and call.made >= most:",
        after="if call is not None and call.made > most:",
        says="One more call than `repeats` allows is made.",
        caught_by="tests/recording/test_budgets.py::test_a_spent_budget_raises_in_place_of_the_next_step",
    ),
    Fault(
        name="a-killed-trial-counts-as-done",
        file="agentspan/evaluation/evaluating.py",
        before="has_score = row.id in scored if names else row.closed_by is None",
        after="has_score = True if names else row.closed_by is None",
        says="A trial that was killed before its score counts as done, without an outcome.",
        caught_by="tests/evaluation/test_evaluating.py::test_a_trial_that_was_killed_before_its_score_runs_again_and_its_cost_counts",
    ),
    Fault(
        name="a-killed-trial-was-free",
        file="agentspan/evaluation/evaluating.py",
        before="self.course.spent_usd += costs[row.id] or 0.0",
        after="self.course.spent_usd += 0.0",
        says="What trials cost that were killed or interrupted does not count for the budget.",
        caught_by="tests/evaluation/test_evaluating.py::test_a_trial_that_was_killed_before_its_score_runs_again_and_its_cost_counts",
    ),
    Fault(
        name="scores-below-1-are-blamed-under-a-rule",
        file="agentspan/evaluation/evaluating.py",
        before="return self._is_by_default and value is not None",
        after="return value is not None",
        says="An evaluation with a rule says that it has none.",
        caught_by="tests/evaluation/test_evaluating.py::test_scores_from_0_to_1_without_a_rule_say_that_only_1_passes",
    ),
    Fault(
        name="a-timeout-of-the-program-is-the-trials",
        file="agentspan/evaluation/first_run.py",
        before="if limit.expired():",
        after="if not limit.expired():",
        says="A TimeoutError of the program is taken for the time limit of the trial.",
        caught_by="tests/evaluation/test_evaluating.py::test_a_trial_has_a_time_limit_and_the_other_ones_go_on",
    ),
    Fault(
        name="a-rate-has-no-interval",
        file="agentspan/evaluation/answers.py",
        before="return self.rate_interval if self.comparison is None else",
        after="return None if self.comparison is None else",
        says="A rate without a base has no interval.",
        caught_by="tests/evaluation/test_evaluating.py::test_without_a_base_there_is_a_rate_and_no_verdict",
    ),
    Fault(
        name="trials-cost-nothing",
        file="agentspan/evaluation/verdicts.py",
        before="self.spent_usd += cost_usd or 0.0",
        after="self.spent_usd -= cost_usd or 0.0",
        says="An evaluation never reaches its budget.",
        caught_by="tests/evaluation/test_evaluating.py::test_a_budget_is_passed_by_one_run_a_worker_at_most",
    ),
    Fault(
        name="a-trial-that-failed-passes-the-session",
        file="agentspan/testing/cases.py",
        before="if report.failed and trial.planned.settings.decide:",
        after="if report.failed or trial.planned.settings.decide:",
        says="A trial that failed without a verdict over all of them is no failure.",
        caught_by="tests/testing/test_cases.py::test_a_verdict_over_all_trials_decides_and_not_a_trial_that_failed",
    ),
    Fault(
        name="a-worse-session-has-no-failed-test",
        file="agentspan/testing/cases.py",
        before="if is_failed:  # as a test",
        after="if not is_failed:  # as a test",
        says="JUnit XML of a session that is worse says that all passed, and that of another has a failure.",
        caught_by="tests/testing/test_cases.py::test_a_worse_session_has_a_failure_in_junit_xml",
    ),
    Fault(
        name="an-empty-gemini-answer-is-a-call",
        file="agentspan/sessions/gemini.py",
        before="if at.is_set and model is None and not tokens and not calls:",
        after="if at.is_set and model is None and not tokens and calls:",
        says="What Gemini CLI puts into a session by itself becomes a call of a model.",
        caught_by="tests/sessions/test_gemini.py::test_a_compression_is_a_compaction",
    ),
    Fault(
        name="codex-instructions-are-kept-once-each",
        file="agentspan/sessions/codex_thread.py",
        before="if text is not None and (hashed := part_of(text)) not in self.instructions:",
        after="if text is not None and (hashed := part_of(text)) in self.instructions:",
        says="A Codex session does not say which instructions it had.",
        caught_by="tests/sessions/test_codex.py::test_the_session_says_what_the_thread_was",
    ),
    Fault(
        name="a-codex-output-of-texts-is-lost",
        file="agentspan/sessions/codex_records.py",
        before="if output is None and texts:",
        after="if output is None and not texts:",
        says="The output of a Codex tool that is a list of texts is lost.",
        caught_by="tests/sessions/test_codex.py::test_a_command_of_the_person_is_a_step",
    ),
)
