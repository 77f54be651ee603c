"""Votes: one per visitor and paper."""

from __future__ import annotations

import threading

from anyorder_papers.database import Database
from anyorder_papers.votes import counts, toggle, voted


def test_a_second_vote_takes_the_first_back(any_database: Database) -> None:
    assert toggle(any_database, 7, "anna", 1) == (1, True)
    assert toggle(any_database, 7, "bert", 2) == (2, True)
    assert toggle(any_database, 7, "anna", 3) == (1, False)
    assert counts(any_database) == {7: 1}
    assert voted(any_database, "bert") == {7}
    assert voted(any_database, "anna") == frozenset()


def test_votes_at_the_same_time_are_all_counted(any_database: Database) -> None:
    def vote(visitor: int) -> None:
        toggle(any_database, 7, str(visitor), 1)

    threads = [threading.Thread(target=vote, args=(n,)) for n in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts(any_database) == {7: 10}
