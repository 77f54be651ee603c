"""Finished runs as Optuna trials: each once, with values, parameters and curves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest
from example_results import lost, point, run

from anyorder.compare.plan.items import Item, items
from anyorder.compare.plan.plan import Plan
from anyorder.compare.plan.space import Dimension
from anyorder.compare.run.records import Final, RunRecord
from anyorder.compare.store.mirror import Mirror
from anyorder.compare.store.schema import Outcome
from anyorder.compare.store.storage import Storage, embedded_url

SPACE = {"a": (Dimension("decay", "log", 0.0, 1e-3, 1.0),), "b": ()}


@pytest.fixture
def storage(tmp_path: Path, small_plan: Plan) -> Any:
    made = Storage(embedded_url(tmp_path))
    made.begin(small_plan)
    made.add([(item, None) for item in items(small_plan)])
    yield made
    made.close()


def record() -> RunRecord:
    shares = ((0.0, 0.1), (0.5, None), (1.0, 0.9))
    curve = [point(fraction=share, metric=metric) for share, metric in shares]
    return run(0, [], curve=curve, final=Final(0.5, 0.9))


def finish(storage: Storage, item: Item, made: RunRecord | None = None) -> None:
    storage.claim(item)
    storage.finish(item, Outcome({"decay": 0.0}, {"decay": 0.0}, made or record(), "m"))


def trials(storage: Storage) -> dict[str, list[optuna.trial.FrozenTrial]]:
    return {
        s.study_name: optuna.load_study(study_name=s.study_name, storage=storage.url).trials
        for s in optuna.get_all_study_summaries(storage.url)
    }


def test_runs_become_trials_of_their_studies(storage: Storage) -> None:
    finish(storage, Item.trial("a", 0, 0))
    finish(storage, Item.report("b", 0, 1))
    finish(storage, Item.trial("a", 0, 1), lost(record(), "failed", error="no"))
    Mirror(storage, "p", "max", SPACE).update()
    found = trials(storage)
    assert sorted(found) == ["p a tune", "p b report"]
    good, bad = found["p a tune"]
    assert (good.value, good.params, good.intermediate_values) == (
        0.9,
        {"decay": 1e-3},
        {0: 0.1, 1000: 0.9},
    )
    assert good.user_attrs["settings"] == {"decay": "0.0"}
    assert (bad.state, bad.user_attrs["error"]) == (optuna.trial.TrialState.FAIL, "no")
    (report,) = found["p b report"]
    assert report.params == {"seed": 1}
    study = optuna.load_study(study_name="p a tune", storage=storage.url)
    assert study.direction == optuna.study.StudyDirection.MAXIMIZE


def test_none_is_added_twice_even_if_its_note_was_lost(storage: Storage, tmp_path: Path) -> None:
    finish(storage, Item.trial("a", 0, 0))
    Mirror(storage, "p", "min", SPACE).update()
    storage._engine.dispose()
    import sqlite3

    with sqlite3.connect(tmp_path / "compare.db") as connection:
        connection.execute("UPDATE anyorder_items SET mirrored = 0")
    connection.close()
    Mirror(storage, "p", "min", SPACE).update()
    assert len(trials(storage)["p a tune"]) == 1
    assert storage.unmirrored() == {}


def test_another_one_at_work_is_left_alone(storage: Storage) -> None:
    finish(storage, Item.trial("a", 0, 0))
    with storage.lock("mirror"):
        Mirror(storage, "p", "min", SPACE).update()
    assert list(storage.unmirrored()) == ["tune/a/0/0"]


def test_a_run_that_was_not_needed_is_no_trial(storage: Storage) -> None:
    item = Item.report("a", 0, 0)
    storage.claim(item)
    storage.finish(item, Outcome({}, {}, None, ""))
    Mirror(storage, "p", "min", SPACE).update()
    assert trials(storage) == {}
    assert storage.unmirrored() == {}


def test_a_few_at_a_time(storage: Storage) -> None:
    for index in range(3):
        finish(storage, Item.trial("a", 0, index))
    mirror = Mirror(storage, "p", "min", SPACE)
    mirror.update(2)
    assert len(storage.unmirrored()) == 1
    mirror.update(2)
    assert len(trials(storage)["p a tune"]) == 3
