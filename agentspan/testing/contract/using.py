"""Contract of a storage: threads, closing and opening again."""

import threading
import unittest

from agentspan.errors import StorageError
from agentspan.model.changes import Applied, Key, Put, Replayed, Unit
from agentspan.storage.protocol import Storage
from agentspan.storage.registry import open_direct
from agentspan.testing.contract.base import Base
from agentspan.testing.contract.rows import T0, T1, finish, violation


class Using(Base):
    """Contract: threads, closing and opening again."""

    def test_of_many_threads_one_wins(self, storage: Storage) -> None:
        """Eight threads finish the same 50 spans."""
        instance = self.instance(storage)
        spans = [self.rows.span(instance) for _ in range(50)]
        self.put(storage, *spans)
        wins: list[str] = []

        def work() -> None:
            for span in spans:
                if isinstance(storage.apply([Unit((finish(span.id),))])[0], Applied):
                    wins.append(span.id)

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(wins) == [span.id for span in spans]

    def test_a_closed_storage_says_so(self, storage: Storage) -> None:
        """Closing twice is fine."""
        storage.close()
        storage.close()
        for use in (lambda: storage.find("x"), lambda: storage.apply([Unit((finish("x"),))])):
            try:
                use()
            except StorageError as error:
                assert "open it again" in str(error)  # noqa: PT017 (pytest is not imported in the package)
            else:
                raise AssertionError("no StorageError")

    def test_what_was_applied_is_there_in_another_instance_and_after_reopening(self, storage: Storage) -> None:
        """Where the storage claims a location: it is opened there again, twice; the account and keys are the same."""
        location = storage.capabilities().location
        if location is None:
            raise unittest.SkipTest("the storage claims no location")
        instance = self.instance(storage)
        span, key = self.rows.span(instance), Key("create", "k", "h", T0)
        create = Unit((Put(span, violations=(violation(),)),), span.id, key)
        assert storage.apply([create]) == [Applied(span)]
        other = open_direct(location)
        assert other.account() == storage.account()
        assert other.apply([create, Unit((finish(span.id),))]) == [Replayed(span), Applied()]
        done = span._replace(status="complete", updated_at=T1)
        assert self.stored(storage, span.id) == done
        other.close()
        storage.close()
        again = open_direct(location)
        assert list(again.iter_spans(instance.id)) == [done]
        assert again.violations([span.id])[span.id] == [violation()]
        assert again.find(key=key).key == ("h", span.id)
        again.close()
