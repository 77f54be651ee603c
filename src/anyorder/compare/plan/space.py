"""What is searched when a method is tuned, and the configurations that are tried.

One rule for methods of this library and for any other class. A dimension with a logarithmic scale
spans :data:`DECADES` decades that contain the default, so that no method searches a wider range
than another. The same class, or a class with the same options and defaults, gets the same space and
the same trials.
"""

from __future__ import annotations

import ast
import hashlib
import json
import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from anyorder.errors import AnyOrderError
from anyorder.extras import require
from anyorder.hyper import Hyper, Search

Sampler = Literal["qmc", "random", "tpe"]
Config = dict[str, Any]
#: Configurations of earlier trials, and the value and loss of each; smaller is better.
Past = Sequence[tuple[Config, tuple[float, float]]]

#: Width of every range with a logarithmic scale.
DECADES = 4
#: Share of a range that counts as its edge.
EDGE = 0.1
#: From so many trials on, the last quarter of them may leave the range.
EDGE_TRIALS_FROM = 4


class SpaceError(AnyOrderError, ValueError):
    """A search space that cannot be used."""


@dataclass(frozen=True, slots=True)
class Dimension:
    """One searched hyper-parameter, as results hold it too.

    Attributes:
        name: the hyper-parameter.
        kind: how it is drawn: evenly in its logarithm, evenly, or from choices.
        default: where it stands in the default configuration, inside the range or not.
        low: lower end of the range.
        high: upper end of the range.
        choices: what is chosen from.
        whole: whether it takes whole numbers only.
        source: where the range comes from: ``declared`` by the method itself, ``as NAME`` (a method
            of this library with the same class name or the same options), ``by name`` of the
            hyper-parameter, or from the ``user``.
        extended: whether trials went beyond an end because the best lay there.
        floor: how far the lower end may move; None: no limit.
        ceiling: how far the upper end may move; None: no limit.
    """

    name: str
    kind: Search
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
        """As text, such as ``lr log 1e-05..0.1 (declared)``."""
        return f"{self.name} {self.range} ({self.source}{', extended' * self.extended})"

    @property
    def range(self) -> str:
        """Kind and ends, such as ``log 1e-05..0.1``."""
        what = "|".join(map(str, self.choices or ())) or f"{self.low:g}..{self.high:g}"
        return f"{self.kind} {what}"

    @property
    def ends(self) -> tuple[float, float]:
        """Both ends of the range of a number."""
        assert self.low is not None and self.high is not None
        return self.low, self.high


# --- Which space --------------------------------------------------------------------------------


def declared(hypers: Mapping[str, Hyper], fixed: Iterable[str] = ()) -> tuple[Dimension, ...]:
    """The search space of a method of this library, without what is fixed."""
    return tuple(
        _declared(name, each, each.default, "declared")
        for name, each in hypers.items()
        if each.search is not None and name not in fixed
    )


def foreign(
    cls: type,
    defaults: Mapping[str, Any],
    fixed: Iterable[str],
    own: Mapping[str, tuple[str, Mapping[str, Hyper]]],
) -> tuple[Dimension, ...]:
    """The search space of a class that declares none.

    The dimensions are those of the method of this library that has the same class name, ignoring
    case, or else the same options. Otherwise ``lr`` and ``momentum`` are searched wherever they
    exist, and ``weight_decay`` where its default is not 0: in many classes it means the coupled L2
    penalty nobody uses.

    Args:
        cls: the class.
        defaults: its options and their defaults.
        fixed: options that are not searched.
        own: name and hyper-parameters of each method of this library, by its class name.
    """
    numbers = {
        name: value
        for name, value in defaults.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool) and name not in fixed
    }
    by_class = [each for name, each in own.items() if name.lower() == cls.__name__.lower()]
    by_options = [each for each in own.values() if each[1].keys() == defaults.keys()]
    for name, hypers in (by_class or by_options)[:1]:
        return tuple(
            _declared(option, hypers[option], defaults[option], f"as {name}")
            for option in (name for name, each in hypers.items() if each.search is not None)
            if option in numbers or (option in defaults and hypers[option].search == "choice")
            if option not in fixed
        )
    found: list[Dimension] = []
    if "lr" in numbers:
        found.append(_log("lr", numbers["lr"], (1e-4, 1.0), "by name"))
    if "momentum" in numbers:
        found.append(
            Dimension(
                "momentum", "linear", numbers["momentum"], 0.0, 0.95, source="by name",
                floor=0.0, ceiling=0.975,
            )
        )  # fmt: skip
    if numbers.get("weight_decay", 0) > 0:
        found.append(_log("weight_decay", numbers["weight_decay"], (1e-4, 1.0), "by name"))
    return tuple(found)


def by_name(name: str, default: float) -> tuple[Dimension, ...]:
    """Search one positive option on a logarithmic scale around its default."""
    return (_log(name, default, (default, default), "by name"),)


def _log(name: str, default: float, fixed: tuple[float, float], source: str) -> Dimension:
    """A logarithmic scale around the default; a fixed range where the default is 0."""
    reach = 10.0 ** (DECADES / 2)
    low, high = (default / reach, default * reach) if default > 0 else fixed
    return Dimension(
        name, "log", default, float(f"{low:.12g}"), float(f"{high:.12g}"), source=source
    )


def _declared(name: str, each: Hyper, default: Any, source: str) -> Dimension:
    if isinstance(default, tuple):
        raise SpaceError(f"{name}: a tuple cannot be searched; declare its parts one by one")
    if each.search == "choice":
        choices = (False, True) if isinstance(default, bool) else each.choices
        return Dimension(name, "choice", default, choices=choices, source=source)
    assert each.search is not None and each.low is not None and each.high is not None
    if each.search == "log" and default > 0 and each.default > 0:
        shift = default / each.default  # the range moves with the default of another class
        low, high = (float(f"{end * shift:.12g}") for end in (each.low, each.high))
        made = Dimension(name, "log", default, low, high, source=source)
    elif each.search == "log":
        made = _log(name, default, (each.low, each.high), source)
    else:
        made = Dimension(name, "linear", default, each.low, each.high, source=source)
    whole = isinstance(each.default, int) and not isinstance(each.default, bool)
    floor, ceiling = _limits(each, made)
    return replace(made, whole=whole, floor=floor, ceiling=ceiling)


def _limits(each: Hyper, dimension: Dimension) -> tuple[float | None, float | None]:
    """How far the ends may move: to a bound, or halfway to one that is not allowed itself."""
    low, high = dimension.ends
    floor, ceiling = each.ge, each.le
    if each.gt is not None:
        floor = (low + each.gt) / 2
    if each.lt is not None:
        ceiling = (high + each.lt) / 2
    if dimension.kind == "log" and max(each.gt or 0.0, each.ge or 0.0) <= 0:
        floor = None  # a logarithm never comes to 0
    return floor, ceiling


# --- Spaces from the user -----------------------------------------------------------------------


def user_space(
    space: Sequence[Dimension],
    wanted: Mapping[str, str],
    defaults: Mapping[str, Any],
    hypers: Mapping[str, Hyper] | None,
) -> tuple[Dimension, ...]:
    """A search space with the dimensions that a user describes.

    Args:
        space: what is searched without them.
        wanted: a range such as ``log:1e-5..1e-1``, ``linear:0..0.99`` or ``a|b|c`` by option.
        defaults: every option and its value in the default configuration.
        hypers: what the class declares; None for a class that is not of this library.

    Raises:
        SpaceError: a range cannot be read, is empty, or leaves what the option may take.
    """
    made = {
        name: _user(name, text, defaults.get(name), hypers[name] if hypers is not None else None)
        for name, text in wanted.items()
    }
    kept = [made.pop(each.name, each) for each in space]
    return (*kept, *made.values())


def _user(name: str, text: str, default: Any, hyper: Hyper | None) -> Dimension:
    if isinstance(default, tuple):
        raise SpaceError(f"{name}: a tuple cannot be searched")
    kind, colon, ends = text.partition(":")
    if kind not in ("log", "linear") or not colon:
        parts = [part.strip() for part in text.split("|")]
        if len(parts) < 2 or "" in parts:
            raise SpaceError(
                f"{name}: expected log:LOW..HIGH, linear:LOW..HIGH or A|B|C, got {text!r}"
            )
        choices = tuple(
            literal(part) if hyper is None else hyper.parse(name, part) for part in parts
        )
        return Dimension(name, "choice", default, choices=choices, source="user")
    left, _, right = ends.partition("..")
    try:
        low, high = float(left), float(right)
    except ValueError:
        raise SpaceError(
            f"{name}: expected two numbers, as in {kind}:1e-5..1e-1, got {text!r}"
        ) from None
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise SpaceError(
            f"{name}: expected two finite numbers LOW..HIGH with LOW < HIGH, got {text!r}"
        )
    if kind == "log" and low <= 0:
        raise SpaceError(f"{name}: a logarithmic range needs LOW > 0, got {text!r}")
    is_count = isinstance(default, int) and not isinstance(default, bool)
    whole = is_count and (hyper is not None or (low.is_integer() and high.is_integer()))
    if hyper is not None:
        for end in (low, high):
            hyper.check(name, int(end) if whole and end.is_integer() else end)
    # The user's ends are meant: no trial leaves them.
    return Dimension(
        name, "log" if kind == "log" else "linear", default, low, high, whole=whole, source="user",
        floor=low, ceiling=high,
    )  # fmt: skip


def literal(text: str) -> Any:
    """A value from a command line: a Python literal where it is one, else the text itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return {"true": True, "false": False, "none": None}.get(text.lower(), text)


# --- Trials -------------------------------------------------------------------------------------


def is_edge_trial(index: int, trials: int) -> bool:
    """Whether a trial may leave the range: the last quarter of ``trials``, if there are enough."""
    return trials >= EDGE_TRIALS_FROM and index >= trials - trials // 4


def depends(index: int, trials: int, sampler: Sampler) -> bool:
    """Whether the configuration of a trial depends on what earlier ones came to."""
    return index > 0 and (sampler == "tpe" or is_edge_trial(index, trials))


def configuration(
    space: Sequence[Dimension],
    index: int,
    *,
    trials: int,
    sampler: Sampler,
    stream: int = 0,
    sampler_seed: int = 0,
    past: Past = (),
) -> Config:
    """The configuration of trial ``index``: the default for 0, drawn after that.

    The same arguments give the same configuration in every process, which is what lets a killed
    comparison go on and several machines share one. Equal spaces get equal trials; other streams
    get others.

    Args:
        space: what is searched.
        index: number of the trial, from 0.
        trials: how many there will be; the last quarter may leave the range, see :func:`explored`.
        sampler: ``qmc`` (scrambled Sobol points), ``random``, or ``tpe``, which learns from
            ``past``.
        stream: number of the independent tuning.
        sampler_seed: chosen by the user.
        past: trials ``0 .. index - 1``; needed where the configuration :func:`depends` on them.
    """
    if index == 0 or not space:
        return {each.name: each.default for each in space}
    if is_edge_trial(index, trials):
        move = _move(explored(space, trials, past[:index]), past[:index])
        if move is not None:
            return move[1]
    seed = _seed(space, stream, sampler_seed)
    if sampler == "tpe":
        return _tpe(space, index, seed, past[:index])
    return {
        each.name: _at(each, share)
        for each, share in zip(space, _shares(len(space), index, sampler, seed), strict=True)
    }


def explored(space: Sequence[Dimension], trials: int, past: Past) -> tuple[Dimension, ...]:
    """The space with the ends that its trials have reached.

    Where the best trial so far lies within a tenth of an end, a trial of the last quarter goes
    beyond it: by a decade, or by a quarter of a range that is not logarithmic.
    """
    found = tuple(space)
    for index in range(1, len(past)):
        move = _move(found, past[:index]) if is_edge_trial(index, trials) else None
        if move is not None:
            found = tuple(move[0] if each.name == move[0].name else each for each in found)
    return found


def at_edge(dimension: Dimension, value: Any) -> Literal["lower", "upper"] | None:
    """The end of the range that a value lies at, if it lies at one.

    A value outside the range, such as a default of 0 on a logarithmic scale, lies at none.
    """
    if dimension.kind == "choice":
        return None
    low, high = dimension.ends
    if not low <= value <= high or low == high:
        return None
    share = (value - low) / (high - low)
    if dimension.kind == "log":
        share = math.log(value / low) / math.log(high / low)
    return "lower" if share <= EDGE else "upper" if share >= 1 - EDGE else None


def open_edge(dimension: Dimension, value: Any) -> Literal["lower", "upper"] | None:
    """The end that a value lies at, if better ones may lie beyond it.

    Not where the hyper-parameter itself ends, as a momentum does at 0; but where the user's range
    does.
    """
    side = at_edge(dimension, value)
    if side is None or (dimension.source != "user" and _beyond(dimension, side) is None):
        return None
    return side


def _move(space: Sequence[Dimension], past: Past) -> tuple[Dimension, Config] | None:
    """The first dimension with the best trial at an edge, extended, and the trial beyond it."""
    best, (value, _) = min(past, key=lambda trial: trial[1], default=({}, (math.inf, math.inf)))
    if math.isinf(value):
        return None
    for each in space:
        side = at_edge(each, best[each.name])
        end = side and _beyond(each, side)
        if end is None:
            continue
        assert isinstance(end, (int, float))
        changed = {"low": end} if side == "lower" else {"high": end}
        return replace(each, extended=True, **changed), {**best, each.name: end}
    return None


def _beyond(dimension: Dimension, side: Literal["lower", "upper"]) -> float | None:
    """The next value beyond an end; None where the end cannot move."""
    low, high = dimension.ends
    if dimension.kind == "log":
        end = low / 10 if side == "lower" else high * 10
    else:
        step = (high - low) / 4
        end = low - step if side == "lower" else high + step
    end = float(f"{end:.12g}")
    if dimension.floor is not None:
        end = max(end, dimension.floor)
    if dimension.ceiling is not None:
        end = min(end, dimension.ceiling)
    end = round(end) if dimension.whole else end
    return end if (end < low if side == "lower" else end > high) else None


def _seed(space: Sequence[Dimension], stream: int, sampler_seed: int) -> int:
    """Equal spaces draw equal points, different ones different points."""
    parts = [(d.name, d.kind, d.default, d.low, d.high, d.choices, d.whole) for d in space]
    text = json.dumps([parts, stream, sampler_seed], default=str)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


def _shares(count: int, index: int, sampler: Sampler, seed: int) -> list[float]:
    """Where point ``index - 1`` lies, as a share of each range."""
    if sampler == "random":
        numpy = require("numpy")
        return numpy.random.default_rng([seed, index]).random(count).tolist()
    sobol = require("scipy.stats").qmc.Sobol(count, scramble=True, rng=seed)
    if index > 1:
        sobol.fast_forward(index - 1)
    return sobol.random(1)[0].tolist()


def _at(dimension: Dimension, share: float) -> Any:
    """The value at a share of the range, or of the choices."""
    if dimension.kind == "choice":
        choices = dimension.choices or ()
        return choices[min(int(share * len(choices)), len(choices) - 1)]
    low, high = dimension.ends
    if dimension.whole:  # every number gets an equal part of the range
        low, high = (low - 0.5, high + 0.5) if dimension.kind == "linear" else (low, high)
    if dimension.kind == "log":
        value = math.exp(math.log(low) + share * math.log(high / low))
    else:
        value = low + share * (high - low)
    return clamped(dimension, round(value) if dimension.whole else value)


def _tpe(space: Sequence[Dimension], index: int, seed: int, past: Past) -> Config:
    optuna = require("optuna")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna marks the multivariate sampler as experimental
        sampler = optuna.samplers.TPESampler(
            seed=(seed + index) % 2**32, n_startup_trials=4, multivariate=True
        )
    distributions = {each.name: distribution(each) for each in space}
    study = optuna.create_study(sampler=sampler)
    for config, (value, _) in past:
        # A default may lie outside its range (a decay of 0); the nearest point inside stands in.
        inside = {each.name: clamped(each, config[each.name]) for each in space}
        study.add_trial(
            optuna.trial.create_trial(params=inside, distributions=distributions, value=value)
        )
    return dict(study.ask(fixed_distributions=distributions).params)


def distribution(dimension: Dimension) -> Any:
    """The dimension as Optuna describes it."""
    kinds = require("optuna").distributions
    if dimension.kind == "choice":
        return kinds.CategoricalDistribution(list(dimension.choices or ()))
    log = dimension.kind == "log"
    low, high = dimension.ends
    if dimension.whole:
        return kinds.IntDistribution(int(low), int(high), log=log)
    return kinds.FloatDistribution(low, high, log=log)


def clamped(dimension: Dimension, value: Any) -> Any:
    """The value, or the nearest one inside the range."""
    if dimension.kind == "choice":
        choices = dimension.choices or (value,)
        return value if value in choices else choices[0]
    low, high = dimension.ends
    inside = min(max(value, low), high)
    return int(inside) if dimension.whole else float(inside)
