"""The settings of a comparison: all conditions that are equal for its methods, declared once.

One object is passed from the command line to the workers, and stored in ``plan.json`` and
``results.json``. A new setting is a new field of :class:`Settings`: its type defines the check, its
description is the help of its command-line option, and its default is omitted from the command that
repeats a comparison.
"""

from __future__ import annotations

import json
from dataclasses import field
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass

from anyorder.compare.plan.checked import STRICT, refusing
from anyorder.compare.plan.limits import Limits, bytes_in, prices, seconds
from anyorder.compare.plan.seeds import MAX_TUNINGS, TUNING_SEED
from anyorder.compare.plan.space import Sampler
from anyorder.errors import AnyOrderError


class SettingsError(AnyOrderError, ValueError):
    """Invalid settings of a comparison."""


def _priced(budget: str) -> str:
    """Return the budget if its unit applies to every method, otherwise raise."""
    Limits.read(budget, prices())
    return budget


def _duration(text: str | None) -> str | None:
    """Check a duration."""
    if text is not None:
        seconds(text)
    return text


def _size(text: str | None) -> str | None:
    """Check a size in bytes."""
    if text is not None:
        bytes_in(text)
    return text


def _stored(options: dict[str, Any]) -> dict[str, Any]:
    """Round-trip options through JSON, so that all processes use equal ones."""
    return json.loads(json.dumps(options, default=str))


@refusing(SettingsError)
@dataclass(frozen=True, config=STRICT)
class Settings:
    """The conditions of a comparison, equal for all methods.

    Raises:
        SettingsError: a setting is wrong; the message says which, and what was expected.

    Example:
        >>> Settings("digits", seeds=5).tune
        4
        >>> Settings("digits", tune=-1)
        Traceback (most recent call last):
        anyorder.compare.plan.settings.SettingsError: tune: expected at least 0, got -1
    """

    problem: Annotated[str, Field(description="A built-in problem, or your own file.")]
    options: Annotated[
        dict[str, Any],
        AfterValidator(_stored),
        Field(description="NAME=VALUE: option of the problem."),
    ] = field(default_factory=dict[str, Any])
    budget: Annotated[
        str,
        AfterValidator(_priced),
        Field(description="Per run: 60s, 500grads, 10_000forwards, 200steps, ..."),
    ] = "20s"
    tune: Annotated[
        int, Field(ge=0, description="Trials per tuning; 0 and 1 use the defaults.")
    ] = 4
    tunings: Annotated[
        int, Field(ge=1, le=MAX_TUNINGS, description="Independent tunings per method.")
    ] = 1
    seeds: Annotated[
        int, Field(ge=1, le=TUNING_SEED, description="Reported runs per tuning of a method.")
    ] = 3
    defaults: Annotated[bool, Field(description="Report each method's default setting too.")] = True
    baseline: Annotated[
        str | None,
        Field(description="What the others are compared with; default: adamw, or the first."),
    ] = None
    twin: Annotated[
        bool, Field(description="Run the baseline twice: their difference is the resolution.")
    ] = True
    timeout: Annotated[
        str | None,
        AfterValidator(_duration),
        Field(description="Per run: 10m, 2h; default: 20 x its estimate, at least 10m."),
    ] = None
    memory: Annotated[
        str | None,
        AfterValidator(_size),
        Field(description="Largest peak memory of a run: 8GiB, 500MB; default: no limit."),
    ] = None
    schedule: Annotated[
        Literal["constant", "cosine"] | None,
        Field(description="constant or cosine; default: set by the problem."),
    ] = None
    sampler: Annotated[Sampler, Field(description="Tuning sampler: qmc, random or tpe.")] = "qmc"
    sampler_seed: Annotated[int, Field(ge=0, description="Seed of the tuning sampler.")] = 0
    evaluations: Annotated[int, Field(ge=1, description="Evaluations per reported run.")] = 20
    rates: Annotated[
        Literal["nominal", "measured"],
        Field(description="Prices of counted budgets: nominal or measured."),
    ] = "nominal"
    device: Annotated[str, Field(description="cpu, cuda, cuda:1, ...")] = "cpu"
    autocast: Annotated[
        Literal["none", "bfloat16", "float16"],
        Field(description="Mixed precision: none, bfloat16 or float16."),
    ] = "none"
    jobs: Annotated[
        int, Field(ge=1, description="Parallel runs; 1 gives the most reliable times.")
    ] = 1
    processes: Annotated[
        int, Field(ge=1, description="Processes of each run, as one torch.distributed group.")
    ] = 1
    threads: Annotated[
        int | None, Field(ge=1, description="Threads per run; default: cores / jobs.")
    ] = None
