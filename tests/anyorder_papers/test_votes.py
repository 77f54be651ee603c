"""Votes: one per visitor and paper, and one per network and paper."""

from __future__ import annotations

import threading

import pytest
import sqlalchemy as sa

from anyorder_papers.database import Database, vote_networks
from anyorder_papers.votes import NetworkVotedError, counts, toggle, voted


def test_a_second_vote_takes_the_first_back(any_database: Database) -> None:
    assert toggle(any_database, 7, "anna", "home", 1) == (1, True)
    assert toggle(any_database, 7, "bert", "office", 2) == (2, True)
    assert toggle(any_database, 7, "anna", "home", 3) == (1, False)
    assert counts(any_database) == {7: 1}
    assert voted(any_database, "bert") == {7}
    assert voted(any_database, "anna") == frozenset()


def test_a_network_votes_once_until_that_vote_is_taken_back(any_database: Database) -> None:
    toggle(any_database, 7, "anna", "home", 1)
    with pytest.raises(NetworkVotedError):
        toggle(any_database, 7, "bert", "home", 2)
    assert voted(any_database, "bert") == frozenset()
    assert toggle(any_database, 8, "bert", "home", 3) == (1, True)
    toggle(any_database, 7, "anna", "elsewhere", 4)
    assert toggle(any_database, 7, "bert", "home", 5) == (1, True)
    with any_database.read() as connection:
        rows = connection.execute(sa.select(vote_networks).order_by(vote_networks.c.paper)).all()
    assert rows == [(7, "home", "bert"), (8, "home", "bert")]


def vote_at_once(database: Database, network: str) -> list[bool]:
    given: list[bool] = []

    def vote(visitor: int) -> None:
        try:
            given.append(toggle(database, 7, str(visitor), network.format(visitor), 1)[1])
        except NetworkVotedError:
            given.append(False)

    threads = [threading.Thread(target=vote, args=(n,)) for n in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return given


def test_votes_at_the_same_time_are_all_counted(any_database: Database) -> None:
    assert all(vote_at_once(any_database, "network {}"))
    assert counts(any_database) == {7: 10}


def test_one_network_gets_one_vote_in_at_the_same_time(any_database: Database) -> None:
    assert sum(vote_at_once(any_database, "one network")) == 1
    assert counts(any_database) == {7: 1}
