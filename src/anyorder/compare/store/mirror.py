"""Finished runs as trials of Optuna studies, for ``optuna-dashboard`` and other readers.

Each method has a study of its tuning runs, with the searched hyper-parameters as parameters, and
one of its reported runs, with the seed as parameter. The value is the metric at the end, the
intermediate values are the metric over thousandths of the budget. The studies are only a
view; the data is in :mod:`anyorder.compare.store.storage`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from anyorder.compare.plan.items import Item
from anyorder.compare.plan.space import Dimension, clamped, distribution
from anyorder.compare.run.records import RunRecord
from anyorder.compare.store.schema import Outcome
from anyorder.compare.store.storage import Storage
from anyorder.extras import require

#: Maximum number of trials added at once, so that heartbeats are not delayed.
BATCH = 25
#: Seconds between two looks at the work of another process.
PAUSE = 0.5


class Mirror:
    """Adds finished runs of all processes to the studies, each exactly once.

    Args:
        storage: the comparison.
        title: prefix of the names of its studies.
        goal: ``min`` or ``max``: direction of the metric.
        spaces: search space of each method.
    """

    def __init__(
        self, storage: Storage, title: str, goal: str, spaces: Mapping[str, tuple[Dimension, ...]]
    ) -> None:
        self._storage, self._title, self._goal, self._spaces = storage, title, goal, spaces
        self._studies: dict[str, Any] = {}
        self._known: dict[str, set[str | None]] = {}
        self._sql: Any = require("sqlalchemy")
        self._optuna: Any = require("optuna")
        self._optuna.logging.set_verbosity(self._optuna.logging.WARNING)
        self._backend: Any = None

    def update(self, most: int | None = BATCH) -> bool:
        """Add up to ``most`` missing finished runs.

        Returns:
            Whether runs were added. False also if another process is adding some, or if the server
            is unreachable; later calls add what is missing.

        Raises:
            StorageError: the database cannot be written.
        """
        if not self._storage.unmirrored(1):
            return False
        with self._storage.lock("mirror") as won:
            return won and self._add_all(most)

    def finish(self) -> None:
        """Add all finished runs; wait for another process that is adding some.

        Raises:
            StorageError: the database cannot be written.
        """
        while self._storage.unmirrored(1):
            if not self.update():
                self._storage.pause(PAUSE)

    def _add_all(self, most: int | None) -> bool:
        found = self._storage.unmirrored(most)
        try:
            # Without a record the default was chosen: its runs are the reported runs.
            todo = {Item.from_key(key): done for key, done in found.items()}
            used = [(item, done, done.record) for item, done in todo.items() if done.record]
            for name in {self._name(item) for item, *_ in used}:
                self._look(name)
            for item, done, record in used:
                self._add(item, done, record)
        except (self._optuna.exceptions.StorageInternalError, self._sql.exc.DBAPIError) as error:
            wrapped = not isinstance(error, self._sql.exc.DBAPIError)
            cause = (wrapped and error.__cause__) or error
            if self._storage.is_lost(cause):
                return False
            raise self._storage.error(cause) from error
        self._storage.mirrored(list(found))
        return True

    def _look(self, name: str) -> None:
        """Note which runs a study contains: a process may have died after it added some."""
        trials = self._study(name).get_trials(deepcopy=False)
        known = self._known.setdefault(name, set())
        known.update(trial.user_attrs.get("run") for trial in trials[len(known) :])

    def _add(self, item: Item, outcome: Outcome, record: RunRecord) -> None:
        name = self._name(item)
        if item.key in self._known[name]:
            return
        states = self._optuna.trial.TrialState
        value = record.final.metric
        done = record.status == "done" and value is not None
        params, distributions = self._params(item, outcome.config)
        self._study(name).add_trial(
            self._optuna.trial.create_trial(
                state=states.COMPLETE if done else states.FAIL,
                value=value if done else None,
                params=params,
                distributions=distributions,
                intermediate_values={
                    round(1000 * point.fraction): point.metric
                    for point in record.curve
                    if point.metric is not None
                },
                user_attrs={
                    "run": item.key,
                    "status": record.status,
                    "error": (record.error or "")[:500],
                    "loss": record.final.loss,
                    "tuning": item.tuning,
                    "seed": item.seed,
                    "settings": {name: str(value) for name, value in outcome.settings.items()},
                },
            )
        )
        self._known[name].add(item.key)

    def _name(self, item: Item) -> str:
        return f"{self._title} {item.method} {item.kind}"

    def _study(self, name: str) -> Any:
        if name not in self._studies:
            if self._backend is None:
                self._backend = self._optuna.storages.RDBStorage(
                    self._storage.url, engine_kwargs=self._storage.engine_options
                )
            self._studies[name] = self._optuna.create_study(
                storage=self._backend,
                study_name=name,
                direction="maximize" if self._goal == "max" else "minimize",
                load_if_exists=True,
            )
        return self._studies[name]

    def _params(
        self, item: Item, config: Mapping[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        if item.kind != "tune":
            seeds = self._optuna.distributions.IntDistribution(0, 2**31 - 1)
            return {"seed": item.seed}, {"seed": seeds}
        space = self._spaces[item.method]
        # Optuna rejects values outside the range; the settings contain the true value.
        values = {each.name: clamped(each, config[each.name]) for each in space}
        return values, {each.name: distribution(each) for each in space}
