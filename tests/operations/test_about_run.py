"""What clients say about a run: task, session, user and tags, as fields or as members of metadata."""

from typing import Any

import pytest

import agentspan
from agentspan.errors import IdempotencyKeyAlreadyUsed, InvalidValue


def test_task_and_tags_are_fields_of_a_registration(db: agentspan.Database) -> None:
    made = db.agent_instances.register("planner", task="book", tags=["b", "a", "b"])
    assert (made.task, made.tags, made.git_dirty) == ("book", ["a", "b"], None)
    assert db.agent_instances.get(made.id) == made
    (listed,) = db.agent_instances.list()
    assert listed.tags == ["a", "b"]


def test_what_is_left_out_is_taken_from_the_metadata_where_it_has_the_type(db: agentspan.Database) -> None:
    metadata: dict[str, Any] = {"task": "book", "session": "s-1", "user": "mia", "tags": ["nightly"], "other": 1}
    made = db.agent_instances.register("planner", metadata=metadata)
    assert (made.task, made.session, made.user, made.tags) == ("book", "s-1", "mia", ["nightly"])
    assert made.metadata == metadata
    own = db.agent_instances.register("planner", metadata=metadata, task="other", tags=[])
    assert (own.task, own.session, own.tags) == ("other", "s-1", [])
    strange: dict[str, Any] = {"task": {"id": 7}, "session": 9, "user": "", "tags": ["a", 1]}
    made = db.agent_instances.register("planner", metadata=strange)
    assert (made.task, made.session, made.user, made.tags) == (None, None, None, [])


@pytest.mark.parametrize("tags", ["nightly", [""], [1], {"a": 1}, ["x" * 201], ["a"] * 101])
def test_tags_are_a_list_of_short_texts(db: agentspan.Database, tags: Any) -> None:
    with pytest.raises(InvalidValue, match="tags"):
        db.agent_instances.register("planner", tags=tags)


def test_a_key_guards_task_and_tags_and_one_from_before_there_were_any_is_the_same(db: agentspan.Database) -> None:
    made = db.agent_instances.register("planner", task="book", tags=["a"], idempotency_key="key-1")
    again = db.agent_instances.register("planner", task="book", tags=["a"], idempotency_key="key-1")
    assert again == made
    for other in ({"task": "other", "tags": ["a"]}, {"task": "book"}):
        with pytest.raises(IdempotencyKeyAlreadyUsed):
            db.agent_instances.register("planner", idempotency_key="key-1", **other)
