"""What clients say about a run: task, session, user and tags, as fields or as members of metadata."""

from typing import Any

import pytest

import agentspan
from agentspan.errors import IdempotencyKeyAlreadyUsed, InvalidValue, RequiredValue


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


def test_a_run_says_more_of_itself_later_and_what_is_left_out_stays(db: agentspan.Database) -> None:
    run = db.agent_instances.register("planner", task="book", session="s", tags=["a", "b"])
    found = db.agent_instances.update(run.id, task="sell", tags=["b", "c"])
    assert (found.task, found.session, found.tags) == ("sell", "s", ["b", "c"])
    found = db.agent_instances.update(run.id, metadata={"task": "rent", "tags": ["d"], "n": 1})
    assert (found.task, found.session, found.tags) == ("rent", "s", ["d"])
    assert found.metadata == {"task": "rent", "tags": ["d"], "n": 1}
    found = db.agent_instances.update(run.id, metadata={"task": "rent"}, task="own", session=None, tags=None)
    assert (found.task, found.session, found.tags) == ("own", None, [])
    found = db.agent_instances.update(run.id, metadata=None, quality_payload={"score": 1})
    assert (found.metadata, found.quality_payload, found.task) == (None, {"score": 1}, "own")
    with pytest.raises(RequiredValue):
        db.agent_instances.update(run.id)
    with pytest.raises(InvalidValue, match="tags"):
        db.agent_instances.update(run.id, task="other", tags=["x" * 201])
    assert db.agent_instances.get(run.id).task == "own"


def test_an_update_with_a_key_is_applied_once(db: agentspan.Database) -> None:
    run = db.agent_instances.register("planner")
    db.agent_instances.update(run.id, task="a", tags=["x"], idempotency_key="key-1")
    db.agent_instances.update(run.id, task="b")
    assert db.agent_instances.update(run.id, task="a", tags=["x"], idempotency_key="key-1").task == "b"
    for other in ({"task": "a"}, {"task": "a", "tags": None}, {"task": "a", "tags": ["x"], "user": None}):
        with pytest.raises(IdempotencyKeyAlreadyUsed):
            db.agent_instances.update(run.id, idempotency_key="key-1", **other)
