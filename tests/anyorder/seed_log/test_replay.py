"""Replay is exact; branches and merges say what they mean."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from anyorder import MeZO
from anyorder.seed_log import SeedLogError, branch, fingerprint, merge, read, replay, resume

Equal = Callable[[nn.Module, nn.Module], bool]
Runs = Any  # the class of conftest.py


def test_the_trained_weights_come_back_bit_for_bit(
    runs_in_dtype: Runs, equal: Equal, options: dict[str, Any]
) -> None:
    runs = runs_in_dtype
    path, trained = runs.run(8, eps=0.05, **options)
    again = runs.fresh()
    assert replay(str(path), again) == 8
    assert equal(again, trained)
    assert not equal(again, runs.base)


def test_large_parameters_and_other_memory_layouts(runs: Runs, equal: Equal) -> None:
    """Blocks of directions, an odd number of elements, a transposed weight."""
    runs.base = nn.Sequential(nn.Linear(5, 401), nn.Linear(401, 333), nn.Linear(333, 3))
    runs.base[1].weight = nn.Parameter(runs.base[1].weight.detach().T.contiguous().T)
    path, trained = runs.run(2)
    again = runs.fresh()
    again[1].weight = nn.Parameter(again[1].weight.detach().contiguous())  # type: ignore[index]
    replay(path, again)
    assert equal(again, trained)


def test_every_prefix_is_the_run_up_to_there(runs: Runs, equal: Equal) -> None:
    path, _ = runs.run(4)
    for steps in range(5):
        _, shorter = runs.run(steps, f"until{steps}")
        again = runs.fresh()
        assert replay(path, again, until=steps) == steps
        assert equal(again, shorter)
    with pytest.raises(SeedLogError, match="until: expected a number of steps from 0 to 4, got 5"):
        replay(path, runs.fresh(), until=5)


def test_the_wrong_base_is_refused_and_left_alone(runs: Runs, equal: Equal) -> None:
    path, trained = runs.run(2)
    before = fingerprint(trained)
    with pytest.raises(SeedLogError, match="the model is not the one that the log starts from"):
        replay(path, trained)
    assert fingerprint(trained) == before
    with pytest.raises(SeedLogError, match="4 parameters unknown to the model: 0.bias, 0.weight"):
        replay(path, nn.Linear(2, 2))


def test_a_log_without_an_end_is_refused_unless_asked_for(runs: Runs, equal: Equal) -> None:
    path, trained = runs.run(3)
    log = read(path)
    path.write_bytes(path.read_bytes()[: log.size])
    with pytest.raises(SeedLogError, match="no end after 3 steps.*unfinished=True"):
        replay(path, runs.fresh())
    again = runs.fresh()
    assert replay(path, again, unfinished=True) == 3
    assert equal(again, trained)


def test_weights_that_are_not_those_of_the_run_are_found(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = runs.run(3)
    monkeypatch.setattr("anyorder.points.directions._COS", (1.0,) * 7)
    with pytest.raises(SeedLogError, match="not those of the run"):
        replay(path, runs.fresh(), engine="eager")


# Branches -----------------------------------------------------------------------------------------


def go_on(runs: Runs, path: Path, steps: range, **options: Any) -> nn.Module:
    """Continues a log and returns the trained model."""
    model = runs.fresh()
    optimizer = MeZO(model, **{"lr": 0.05, **options})
    with resume(optimizer, path):
        for step in steps:
            optimizer.step(runs.closure(model, step))
    return model


def test_a_branch_goes_on_from_an_earlier_step(runs: Runs, equal: Equal) -> None:
    path, trained = runs.run(6)
    same, other = runs.folder / "same", runs.folder / "other"
    branch(path, 4, same)
    branch(str(path), 4, str(other))
    assert equal(go_on(runs, same, range(4, 6)), trained)
    assert same.read_bytes() == path.read_bytes()
    changed = go_on(runs, other, range(4, 9), seed=7, lr=0.02)
    again = runs.fresh()
    assert replay(other, again) == 9
    assert equal(again, changed) and not equal(again, trained)
    assert [step.number for step in read(other).steps] == list(range(9))
    with pytest.raises(SeedLogError, match="expected 0 to 6, the steps there are; got 7"):
        branch(path, 7, runs.folder / "none")


# Merges -------------------------------------------------------------------------------------------


def change(model: nn.Module, base: nn.Module) -> torch.Tensor:
    pairs = zip(model.parameters(), base.parameters(), strict=True)
    return torch.cat([(a - b).detach().double().flatten() for a, b in pairs])


def test_a_merge_is_one_sequence_of_moves_after_the_other(runs: Runs, equal: Equal) -> None:
    first, one = runs.run(4, "first", seed=1)
    second, other = runs.run(5, "second", seed=2)
    merged, way_back = runs.fresh(), runs.fresh()
    merge(first, second, runs.folder / "merged", merged)
    merge(second, first, runs.folder / "back", way_back)
    again = runs.fresh()
    assert replay(runs.folder / "merged", again) == 9
    assert equal(again, merged)
    both = change(one, runs.base) + change(other, runs.base)
    for found in (merged, way_back):
        torch.testing.assert_close(change(found, runs.base), both, atol=2e-6, rtol=0)
    by_hand = runs.fresh()  # exactly: the second run's moves on top of the first run's weights
    by_hand.load_state_dict(one.state_dict())
    optimizer = MeZO(by_hand, seed=2)
    for step in read(second).steps:
        optimizer.steps = step.number
        for move in step.moves:
            with torch.no_grad():
                optimizer.move_(optimizer.direction(move.index), lambda _, m=move: m.scales[0])
    assert equal(by_hand, merged)


def test_with_decay_the_second_run_decays_the_first(runs: Runs) -> None:
    first, one = runs.run(3, "first", seed=1)
    second, other = runs.run(3, "second", seed=2, weight_decay=2.0)
    merged = runs.fresh()
    merge(first, second, runs.folder / "merged", merged)
    kept = (1 - 0.05 * 2.0) ** 3
    expected = one[0].weight * kept + other[0].weight - runs.base[0].weight * kept  # type: ignore[index]
    torch.testing.assert_close(merged[0].weight, expected, atol=1e-6, rtol=0)  # type: ignore[index]


def test_a_common_beginning_is_applied_once(runs: Runs, equal: Equal) -> None:
    path, trained = runs.run(4)
    left, right = runs.folder / "left", runs.folder / "right"
    for target, seed in ((left, 0), (right, 5)):
        branch(path, 2, target)
        go_on(runs, target, range(2, 5), seed=seed)
    merged = runs.fresh()
    merge(left, right, runs.folder / "merged", merged)
    assert len(read(runs.folder / "merged").steps) == 2 + 3 + 3
    alone = runs.fresh()
    merge(path, left, runs.folder / "prefix", alone)
    assert len(read(runs.folder / "prefix").steps) == 5
    same = runs.fresh()
    merge(path, path, runs.folder / "twice", same)
    assert equal(same, trained)


def test_a_merged_log_can_be_continued(runs: Runs, equal: Equal) -> None:
    first, _ = runs.run(2, "first", seed=1)
    second, _ = runs.run(3, "second", seed=1, lr=0.01)
    merge(first, second, runs.folder / "merged", runs.fresh())
    model = go_on(runs, runs.folder / "merged", range(5, 7), seed=1)
    assert read(runs.folder / "merged").steps[-1].number == 6
    again = runs.fresh()
    replay(runs.folder / "merged", again)
    assert equal(again, model)


def test_merges_of_different_bases_are_refused(runs: Runs, tmp_path: Path) -> None:
    first, _ = runs.run(1, "first")
    frozen, _ = runs.run(1, "second")
    runs.base[0].requires_grad_(False)
    frozen, _ = runs.run(1, "frozen")
    with pytest.raises(SeedLogError, match="different parameter groups"):
        merge(first, frozen, tmp_path / "merged", runs.fresh())
    with torch.no_grad():
        runs.base[2].weight.add_(1.0)
    other, _ = runs.run(1, "other")
    with pytest.raises(SeedLogError, match="different base weights"):
        merge(first, other, tmp_path / "merged", runs.fresh())
    with pytest.raises(SeedLogError, match="already exists"):
        merge(first, first, other, runs.fresh())
