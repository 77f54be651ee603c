"""The log of a run: applied as MeZO does, durable, and refused when it is not this run's."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from anyorder.engine import Engine
from anyorder.methods.mezo import MeZO
from anyorder.offload import OffloadError
from anyorder.offload.moves import Move, Moves
from anyorder.points.directions import Seeded

EAGER = Engine("eager")


def move(step: int = 0) -> Move:
    return Move(3, step, (0.1 + step, -2.5), 1e-2, 0.5)


def run(path: Path, count: int) -> Moves:
    moves = Moves(path, "model")
    moves.begin()
    for step in range(count):
        moves.append(move(step), {"steps": step + 1})
    return moves


def test_a_move_is_the_formula() -> None:
    start = {"m": torch.randn(3, 4, dtype=torch.float64), "v": torch.randn(5, dtype=torch.float64)}
    found = {name: t.clone() for name, t in start.items()}
    move().apply_(found, EAGER)
    z = [{n: Seeded(3, 0, i).tensor(n, t) for n, t in start.items()} for i in (0, 1)]
    for name, x in start.items():
        mean = (0.1 * z[0][name] - 2.5 * z[1][name]) / 2
        wanted = x - 1e-2 * (mean + 0.5 * x * (x.ndim > 1))
        torch.testing.assert_close(found[name], wanted, rtol=1e-6, atol=1e-9)


def test_a_move_is_the_update_of_mezo_bit_for_bit() -> None:
    x = nn.Parameter(torch.randn(70, 90))
    twin = x.detach().clone()
    seen: list[float] = []

    def closure() -> torch.Tensor:
        loss = (x**3).mean()
        seen.append(loss.item())
        return loss

    MeZO([("x", x)], lr=0.5, eps=1e-2, seed=4, weight_decay=0.2).step(closure)
    slope = (seen[0] - seen[1]) / 2e-2
    Move(4, 0, (slope,), 0.5, 0.2).apply_({"x": twin}, EAGER)
    assert torch.equal(x, twin)


def test_a_skipped_step_moves_nothing() -> None:
    x = torch.ones(3, 3)
    Move(0, 0, (), 1.0, 0.5).apply_({"x": x}, EAGER)
    assert torch.equal(x, torch.ones(3, 3))


def test_old_moves_are_forgotten_and_still_counted() -> None:
    moves = Moves()
    for step in range(4):
        moves.append(move(step), {})
    moves.forget(3)
    assert (len(moves), moves.since(3), moves.since(4)) == (4, [move(3)], [])


def test_a_log_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "log"
    run(path, 3)
    moves = Moves(path, "model", resume=True)
    assert (moves.since(0), moves.last) == ([move(0), move(1), move(2)], {"steps": 3})
    moves.append(move(3), {"steps": 4})
    assert len(Moves(path, "model", resume=True)) == 4


def test_a_line_that_was_being_written_does_not_count(tmp_path: Path) -> None:
    path = tmp_path / "log"
    run(path, 2)
    short = path.stat().st_size
    run(path, 3)
    data = path.read_bytes()
    for end in range(short, len(data)):
        path.write_bytes(data[:end])
        moves = Moves(path, "model", resume=True)
        assert (len(moves), moves.last) == (2, {"steps": 2}), end
        assert path.stat().st_size == short
    moves.append(move(2), {"steps": 3})
    assert path.read_bytes() == data


def test_a_full_disk_leaves_the_log_as_it_is(tmp_path: Path, full_disk: Any) -> None:
    path = tmp_path / "log"
    moves = run(path, 2)
    before = path.read_bytes()
    for size in (len(before), len(before) + 10):
        with full_disk(size), pytest.raises(OffloadError, match="Nothing is lost: free disk space"):
            moves.append(move(2), {})
        assert path.read_bytes() == before
        assert len(moves) == 2
    moves.append(move(2), {})
    assert len(Moves(path, "model", resume=True)) == 3


def test_other_logs_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with pytest.raises(OffloadError, match="expected the folder of an earlier run"):
        Moves(path, "model", resume=True)
    run(path, 3)
    with pytest.raises(OffloadError, match="belongs to another model"):
        Moves(path, "another", resume=True)


def test_damaged_logs_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "log"
    run(path, 3)
    head, *lines = path.read_bytes().splitlines(keepends=True)
    absurd = json.loads(lines[1])
    absurd["slopes"] = [float("nan"), 1.0]
    cases = {
        "expected move 0, got 1": [head, lines[1], lines[0], lines[2]],
        "expected move 1, got 2": [head, lines[0], lines[2]],
        "is not a move": [head, lines[0], b"rubbish\n", lines[2]],
        "expected numbers": [head, lines[0], json.dumps(absurd).encode() + b"\n"],
    }
    for says, data in cases.items():
        path.write_bytes(b"".join(data))
        with pytest.raises(OffloadError, match=says):
            Moves(path, "model", resume=True)
    assert os.listdir(tmp_path) == ["log"]
