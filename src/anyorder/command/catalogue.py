"""Methods and problems as plain data, for ``anyorder list``, ``show``, ``problems`` and scripts."""

from __future__ import annotations

import inspect
from typing import Any

from anyorder import methods as registry
from anyorder.compare.plan.entrants import Entrant, resolve
from anyorder.compare.plan.space import Dimension
from anyorder.hyper import Hyper
from anyorder.optimizer import Optimizer


def methods() -> list[dict[str, Any]]:
    """All methods: ``name``, ``class``, ``order``, ``needs``, ``buffers`` and ``summary``."""
    found: list[dict[str, Any]] = []
    for name in registry.names():
        cls = registry.get(name)
        found.append(
            {
                "name": name,
                "class": cls.__name__,
                "order": cls.order,
                "needs": sorted(cls.needs),
                "buffers": list(cls.buffers),
                "summary": summary(cls),
            }
        )
    return found


def method(spec: str) -> dict[str, Any]:
    """One method: the fields of :func:`methods`, and ``doc``, ``options``, ``version``, ``source``.

    Args:
        spec: a name or an import path, see :mod:`anyorder.compare.plan.entrants`.
    """
    entrant = resolve(spec)
    cls = entrant.cls if entrant.tool is None else entrant.tool.documented
    return {
        "name": entrant.name,
        "class": entrant.path,
        "version": entrant.version,
        "order": entrant.order,
        "needs": entrant.needs,
        "buffers": list(entrant.cls.buffers) if issubclass(entrant.cls, Optimizer) else [],
        "summary": summary(cls),
        "doc": inspect.getdoc(cls) or "",
        "options": _options(entrant),
        "source": inspect.getsourcefile(cls if hasattr(cls, "__qualname__") else type(cls)) or "",
    }


def problems() -> list[dict[str, Any]]:
    """The built-in problems: ``name``, ``metric``, ``goal``, ``target``, ``optimum``, ..."""
    from anyorder.problems import load, names

    found: list[dict[str, Any]] = []
    for name in names():
        problem = load(name)  # reads no data yet
        found.append(
            {
                "name": name,
                "metric": problem.metric,
                "goal": problem.goal,
                "target": problem.target,
                "optimum": problem.optimum,
                "schedule": problem.schedule,
                "options": problem.options(),
                "summary": summary(type(problem)),
            }
        )
    return found


def summary(cls: Any) -> str:
    """First line of a docstring, without a leading name."""
    line = (inspect.getdoc(cls) or "").partition("\n")[0].rstrip(".")
    words = line.partition(": ")[2] or line
    return words[:1].upper() + words[1:]


def _options(entrant: Entrant) -> list[dict[str, Any]]:
    searched = {each.name: each for each in entrant.space}
    declared: dict[str, Hyper] = entrant.cls.hypers if issubclass(entrant.cls, Optimizer) else {}
    rows: list[dict[str, Any]] = []
    for name, default in entrant.defaults.items():
        each = declared.get(name)
        rows.append(
            {
                "name": name,
                "default": default,
                "range": each.range() if each else "",
                "search": _search(searched[name]) if name in searched else "",
                "unit": each.unit if each else "",
                "doc": each.doc if each else "",
            }
        )
    return rows


def _search(dimension: Dimension) -> str:
    """The range, and where it comes from if the class does not declare it."""
    declares = dimension.source == "declared"
    return dimension.range if declares else f"{dimension.range} ({dimension.source})"
