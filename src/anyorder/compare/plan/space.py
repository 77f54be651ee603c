"""Search spaces for tuning, and the configurations of the trials."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from anyorder.errors import AnyOrderError
from anyorder.extras import require
from anyorder.hyper import Hyper

Sampler = Literal["qmc", "random", "tpe"]
Config = dict[str, Any]


class SpaceError(AnyOrderError, ValueError):
    """An invalid search space."""


@dataclass(frozen=True, slots=True)
class Dimension:
    """One tuned hyper-parameter, as also stored in results.

    Attributes:
        name: the hyper-parameter.
        kind: how it is sampled: log-uniformly, uniformly, or from choices.
        default: its default, which may lie outside the range.
        low: lower end of the range.
        high: upper end of the range.
        choices: the possible values.
        whole: whether it is an integer.
        assumed: whether the range is guessed from the name, for a class without a declared space.
    """

    name: str
    kind: Literal["log", "linear", "choice"]
    default: Any
    low: float | None = None
    high: float | None = None
    choices: tuple[Any, ...] | None = None
    whole: bool = False
    source: str = "declared"
    extended: bool = False
    floor: float | None = None
    ceiling: float | None = None

    def __str__(self) -> str:
        """As text, such as ``lr log 1e-05..0.1``."""
        what = "|".join(map(str, self.choices or ())) or f"{self.low:g}..{self.high:g}"
        return f"{self.name} {self.kind} {what}" + f" ({self.source})"


def declared(hypers: Mapping[str, Hyper], fixed: Mapping[str, Any]) -> tuple[Dimension, ...]:
    """The declared search space of a method of this library, without fixed settings."""
    found: list[Dimension] = []
    for name, each in hypers.items():
        if each.search is None or name in fixed:
            continue
        if isinstance(each.default, tuple):
            raise SpaceError(
                f"{name}: a tuple cannot be searched; declare one hyper-parameter per element"
            )
        whole = isinstance(each.default, int) and not isinstance(each.default, bool)
        choices = each.choices if each.search == "choice" else None
        found.append(
            Dimension(name, each.search, each.default, each.low, each.high, choices, whole)
        )
    return tuple(found)


def assumed(
    cls: type, defaults: Mapping[str, Any], fixed: Mapping[str, Any]
) -> tuple[Dimension, ...]:
    """A search space for a foreign class, guessed from the names of its arguments.

    ``lr`` and ``momentum`` are tuned if they exist, ``weight_decay`` only if its default is not
    zero: in many classes it is the coupled L2 penalty, which is rarely used.
    """
    low, high = (0.1, 1.0) if cls.__name__ == "LBFGS" else (1e-5, 1.0)
    guesses = {
        "lr": Dimension("lr", "log", defaults.get("lr"), low, high, source="by name"),
        "momentum": Dimension(
            "momentum", "linear", defaults.get("momentum"), 0.0, 0.95, source="by name"
        ),
    }
    decay = defaults.get("weight_decay")
    if isinstance(decay, (int, float)) and decay > 0:
        guesses["weight_decay"] = Dimension("weight_decay", "log", decay, 1e-4, 1.0, source="by name")
    return tuple(
        guess
        for name, guess in guesses.items()
        if name not in fixed and isinstance(defaults.get(name), (int, float))
    )


def configuration(
    space: Sequence[Dimension],
    index: int,
    *,
    sampler: Sampler,
    seed: int,
    past: Sequence[tuple[Config, float]] = (),
) -> Config:
    """Return the configuration of a trial: the default for index 0, then sampled by Optuna.

    The same arguments give the same configuration in every process, so a killed comparison can
    continue, and several machines can share one.

    Args:
        space: the search space.
        index: number of the trial, from 0.
        sampler: ``qmc`` (scrambled Sobol points), ``random``, or ``tpe``, which learns from
            ``past``.
        seed: seed of the sampler, the same for all methods.
        past: configurations and values (smaller is better) of trials ``0 .. index - 1``; used only
            by ``tpe``.
    """
    defaults = {each.name: each.default for each in space}
    if index == 0 or not space:
        return defaults
    optuna = require("optuna")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    distributions = {each.name: distribution(each) for each in space}
    study = optuna.create_study(sampler=_sampler(sampler, seed, index))
    trials = past[:index] if sampler == "tpe" else [(defaults, 0.0)]
    for config, value in trials:
        # A default can be outside its range (a decay of 0): use the nearest value inside.
        inside = {each.name: clamped(each, config[each.name]) for each in space}
        study.add_trial(
            optuna.trial.create_trial(params=inside, distributions=distributions, value=value)
        )
    drawn: Config = {}
    for _ in range(1 if sampler == "tpe" else index):
        drawn = dict(study.ask(fixed_distributions=distributions).params)
    return drawn


def _sampler(name: Sampler, seed: int, index: int) -> Any:
    samplers = require("optuna").samplers
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # two of these are experimental in Optuna
        if name == "qmc":
            require("scipy")
            return samplers.QMCSampler(
                scramble=True,
                seed=seed,
                independent_sampler=samplers.RandomSampler(seed=seed),
                warn_independent_sampling=False,
            )
        if name == "random":
            return samplers.RandomSampler(seed=seed)
        return samplers.TPESampler(seed=seed + index, n_startup_trials=4, multivariate=True)


def distribution(dimension: Dimension) -> Any:
    """The dimension as an Optuna distribution."""
    kinds = require("optuna").distributions
    if dimension.kind == "choice":
        return kinds.CategoricalDistribution(list(dimension.choices or ()))
    log = dimension.kind == "log"
    assert dimension.low is not None and dimension.high is not None
    if dimension.whole:
        return kinds.IntDistribution(int(dimension.low), int(dimension.high), log=log)
    return kinds.FloatDistribution(dimension.low, dimension.high, log=log)


def clamped(dimension: Dimension, value: Any) -> Any:
    """The value, or the nearest one inside the range."""
    if dimension.kind == "choice":
        choices = dimension.choices or (value,)
        return value if value in choices else choices[0]
    assert dimension.low is not None and dimension.high is not None
    inside = min(max(value, dimension.low), dimension.high)
    return int(inside) if dimension.whole else float(inside)
