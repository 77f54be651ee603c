"""Upvotes: at most one per visitor and paper; voting again withdraws the vote.

A visitor is identified by a cookie. Since deleting it makes a new visitor, a paper also has at most
one vote per network.
"""

from __future__ import annotations

import sqlalchemy as sa

from anyorder.errors import AnyOrderError
from anyorder_papers.database import Database, insert_new, vote_networks, votes


class NetworkVotedError(AnyOrderError, ValueError):
    """Another visitor from the same network has voted for the paper; nothing was changed."""


def toggle(
    database: Database, paper: int, visitor: str, network: str, now: int
) -> tuple[int, bool]:
    """Add or withdraw a visitor's vote.

    Args:
        database: The database.
        paper: The paper's number; the caller has checked that it exists.
        visitor: Hash of the visitor's cookie, 64 hexadecimal digits.
        network: Keyed hash of the visitor's network, 64 hexadecimal digits.
        now: Seconds since 1970.

    Returns:
        The paper's number of votes, and whether the visitor's is now among them.

    Raises:
        NetworkVotedError: If another visitor from this network has voted.
    """
    with database.write() as connection:
        given = insert_new(connection, votes, {"paper": paper, "visitor": visitor, "at": now})
        if given:
            row = {"paper": paper, "network": network, "visitor": visitor}
            if not insert_new(connection, vote_networks, row):
                # The transaction is rolled back, and the vote with it.
                raise NetworkVotedError(f"paper {paper} has a vote from this network")
        else:
            connection.execute(
                sa.delete(votes).where(votes.c.paper == paper, votes.c.visitor == visitor)
            )
        count = connection.scalar(
            sa.select(sa.func.count()).select_from(votes).where(votes.c.paper == paper)
        )
        return int(count or 0), given


def counts(database: Database) -> dict[int, int]:
    """Return votes by paper; papers without votes are omitted."""
    with database.read() as connection:
        rows = connection.execute(sa.select(votes.c.paper, sa.func.count()).group_by(votes.c.paper))
        return {int(paper): int(count) for paper, count in rows}


def voted(database: Database, visitor: str) -> frozenset[int]:
    """Return the papers that a visitor has voted for."""
    with database.read() as connection:
        return frozenset(
            connection.scalars(sa.select(votes.c.paper).where(votes.c.visitor == visitor))
        )
