"""The pairs satisfy the order conditions of rooted trees, both orders of each."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from anyorder_studies.pal2023localreg.tableaus import TABLEAUS, LocalRegError, Tableau

Tree = tuple[Any, ...]

# Rooted trees of up to five nodes, each as the tuple of its subtrees.
LEAF: Tree = ()


def trees(order: int) -> list[Tree]:
    """All rooted trees with a number of nodes."""
    if order == 1:
        return [LEAF]
    found: set[Tree] = set()
    for smaller in range(1, order):
        for branch in trees(smaller):
            for rest in trees(order - smaller):
                found.add(tuple(sorted((*rest, branch), key=repr)))
    return sorted(found, key=repr)


def size(tree: Tree) -> int:
    return 1 + sum(size(branch) for branch in tree)


def density(tree: Tree) -> int:
    product = size(tree)
    for branch in tree:
        product *= density(branch)
    return product


def stage_weight(tree: Tree, a: np.ndarray) -> np.ndarray:
    product = np.ones(len(a))
    for branch in tree:
        product = product * (a @ stage_weight(branch, a))
    return product


def matrix(tableau: Tableau) -> np.ndarray:
    a = np.zeros((len(tableau.c), len(tableau.c)))
    for i, row in enumerate(tableau.a):
        a[i, : len(row)] = row
    return a


def test_there_are_as_many_trees_as_there_should_be():
    assert [len(trees(order)) for order in range(1, 6)] == [1, 1, 2, 4, 9]


@pytest.mark.parametrize("tableau", TABLEAUS.values(), ids=TABLEAUS)
def test_rows_add_up_to_the_nodes(tableau: Tableau):
    np.testing.assert_allclose(matrix(tableau).sum(axis=1), tableau.c, atol=1e-13)


@pytest.mark.parametrize("tableau", TABLEAUS.values(), ids=TABLEAUS)
def test_the_new_state_has_its_order_and_no_more(tableau: Tableau):
    a, b = matrix(tableau), np.array(tableau.b)
    for order in range(1, tableau.order + 1):
        for tree in trees(order):
            assert b @ stage_weight(tree, a) == pytest.approx(1.0 / density(tree), abs=1e-12)
    above = [b @ stage_weight(t, a) - 1.0 / density(t) for t in trees(tableau.order + 1)]
    assert max(map(abs, above)) > 1e-5


@pytest.mark.parametrize("tableau", TABLEAUS.values(), ids=TABLEAUS)
def test_the_error_is_that_of_the_order_below(tableau: Tableau):
    a, error = matrix(tableau), np.array(tableau.error)
    for order in range(1, tableau.order):
        for tree in trees(order):
            assert error @ stage_weight(tree, a) == pytest.approx(0.0, abs=1e-12)
    assert max(abs(error @ stage_weight(t, a)) for t in trees(tableau.order)) > 1e-5


@pytest.mark.parametrize("tableau", TABLEAUS.values(), ids=TABLEAUS)
def test_stability_limit_on_the_negative_axis(tableau: Tableau):
    a, b = matrix(tableau), np.array(tableau.b)

    def growth(x: float) -> float:
        return abs(1.0 + x * b @ np.linalg.solve(np.eye(len(b)) - x * a, np.ones(len(b))))

    assert growth(-0.999 * tableau.stability) <= 1.0 < growth(-1.001 * tableau.stability)


def test_a_misshapen_tableau_is_refused():
    with pytest.raises(LocalRegError, match="row i with i entries"):
        Tableau("bad", 1, (0.0, 1.0), ((), (0.5, 0.5)), (0.0, 0.0), 2.0)
