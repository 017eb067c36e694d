"""Contract of a storage: groups."""

import unittest

from agentspan.model.changes import Applied, Key, Put, Refused, Unit
from agentspan.storage.protocol import Storage
from agentspan.testing.contract.base import Base
from agentspan.testing.contract.rows import T0, finish


class GroupsContract(Base):
    """Contract: groups."""

    def test_a_group_sees_what_it_wrote_and_is_whole_or_nothing(self, storage: Storage) -> None:
        """Where the storage has groups."""
        groups = storage.capabilities().groups
        if groups is None:
            raise unittest.SkipTest("the storage claims no groups")
        instance = self.instance(storage)
        one, two = self.rows.span(instance), self.rows.span(instance)

        def work(group: Storage) -> str:
            assert group.apply([Unit((Put(one),), one.id)]) == [Applied(one)]
            assert group.find(one.id).rows[one.id][1] == one
            assert group.apply([Unit((Put(one),))]) == [Refused("id_used", one)]
            assert group.apply([Unit((Put(two),))]) == [Applied()]
            return "done"

        assert groups.group(work, 1.0) == "done"
        assert [span.id for span in storage.iter_spans(instance.id)] == [one.id, two.id]
        before, key = list(storage.iter_spans(instance.id)), Key("create", "k", "h", T0)

        def fail(group: Storage) -> None:
            lost = self.rows.span(instance)
            units = [Unit((Put(lost),), lost.id, key), Unit((finish(one.id),)), Unit((Put(self.rows.agent("lost")),))]
            assert len(group.apply(units)) == 3
            raise ZeroDivisionError

        try:
            groups.group(fail, 1.0)
        except ZeroDivisionError:
            pass
        assert list(storage.iter_spans(instance.id)) == before
        assert storage.find(key=key).key is None
        assert storage.apply([Unit((Put(self.rows.agent("lost")),))]) == [Applied()]
