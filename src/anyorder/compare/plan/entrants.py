"""Entrants: methods of this library and of others, resolved by name.

``adamw`` is a method of this library, ``torch.optim:LBFGS`` or ``my_package.module:MyClass`` is
imported, ``folder/file.py:MyClass`` is loaded from a file, ``scipy:L-BFGS-B`` and the like are in
:mod:`anyorder.compare.plan.tools`, and ``fast=adamw`` gives any of these another name, so that one
method can take part twice with different settings.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import importlib
import importlib.util
import inspect
import os
import re
import sys
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import torch

import anyorder
from anyorder import methods
from anyorder.compare.plan.space import (
    Config,
    Dimension,
    SpaceError,
    by_name,
    declared,
    foreign,
    literal,
    user_space,
)
from anyorder.compare.plan.tools import LIBRARIES, Tool, ToolError, find
from anyorder.errors import AnyOrderError
from anyorder.hyper import Hyper, refuse_unknown
from anyorder.optimizer import Optimizer

_LABEL = re.compile(r"(?P<label>[A-Za-z0-9_.+-]+)=(?P<spec>.+)", re.DOTALL)


class EntrantError(AnyOrderError, ValueError):
    """A method or setting that cannot be compared."""


def switches(optimizer: object) -> bool:
    """Whether an optimizer switches to an average in ``eval()`` and back in ``train()``."""
    return all(callable(getattr(optimizer, name, None)) for name in ("eval", "train"))


@dataclass(frozen=True)
class Entrant:
    """One method in a comparison, resolved.

    Attributes:
        name: its name in the results.
        spec: the text it was resolved from.
        cls: the class.
        version: version of the package, or hash of the file, that defines the class.
        defaults: every setting and its default.
        fixed: settings set by the user, which are not tuned.
        space: the search space.
        ranges: the part of it set by the user, as text.
        failed: why it cannot be used, else None; it may then have no class of its own.
        tool: the optimizer of another library that runs its own loop, else None; it then has no
            class of its own.
    """

    name: str
    spec: str
    cls: type[torch.optim.Optimizer]
    version: str
    defaults: dict[str, Any]
    fixed: dict[str, Any]
    space: tuple[Dimension, ...]
    ranges: dict[str, str] = field(default_factory=dict[str, str])
    failed: str | None = None
    tool: Tool | None = None

    @classmethod
    def unusable(cls, name: str, spec: str, why: str) -> Entrant:
        """Return an entrant that cannot be used."""
        return cls(name, spec, torch.optim.Optimizer, "", {}, {}, (), failed=why)

    @property
    def ours(self) -> bool:
        """Whether the class is an :class:`anyorder.Optimizer`."""
        return issubclass(self.cls, Optimizer)

    @property
    def order(self) -> int | str:
        """Order of the method; 1 (gradients) for a class that does not declare it."""
        if self.tool is not None:
            return self.tool.order
        return self.cls.order if issubclass(self.cls, Optimizer) else 1

    @property
    def needs(self) -> list[str]:
        """The kinds of information the method needs."""
        if self.tool is not None:
            return self.tool.needs
        return sorted(self.cls.needs) if issubclass(self.cls, Optimizer) else ["grad"]

    @property
    def scheduled(self) -> bool:
        """Whether the method uses a learning-rate schedule.

        False for methods that average instead; foreign ones are recognised by :func:`switches`.
        """
        if self.tool is not None:
            return False
        return self.cls.scheduled if issubclass(self.cls, Optimizer) else not switches(self.cls)

    @property
    def path(self) -> str:
        """Full name of the class."""
        if self.tool is not None:
            return self.tool.path
        if self.failed is not None:
            return self.spec
        return f"{self.cls.__module__}.{self.cls.__qualname__}"

    def settings(self, config: Mapping[str, Any] | None = None) -> Config:
        """Every hyper-parameter of a run: defaults, then what is fixed, then ``config``."""
        return {**self.defaults, **self.fixed, **(config or {})}

    def describe(self) -> str:
        """Resolved class, version, settings and search space as text."""
        if self.failed is not None:
            return f"{self.name} cannot be used: {self.failed}"
        settings = ", ".join(f"{name}={value}" for name, value in self.settings().items())
        searched = ", ".join(map(str, self.space)) or "nothing"
        return f"{self.name}: {self.path} {self.version}; {settings}; searched: {searched}"


def suited(entrant: Entrant, problem: str, parameters: int, *, judged: bool) -> Entrant:
    """Return the entrant, with ``failed`` set if it cannot be used on this problem.

    Args:
        entrant: the method.
        problem: name of the problem.
        parameters: number of trainable parameters.
        judged: whether the problem answers with rankings only.
    """
    tool = entrant.tool
    if entrant.failed is not None:
        return entrant
    if judged and set(entrant.needs) != {"rank"} and not (tool and tool.ranks):
        kinds = ", ".join(entrant.needs)
        why = f"{problem} answers with rankings only, and this method needs {kinds}"
    elif tool and tool.limit is not None and parameters > tool.limit:
        why = f"{parameters:,} parameters are too many: at most {tool.limit:,}, as {tool.why}"
    else:
        return entrant
    return replace(entrant, failed=why)


def resolve_all(
    specs: Iterable[str], sets: Iterable[str] = (), spaces: Iterable[str] = ()
) -> list[Entrant]:
    """Resolve all entrants of a comparison.

    A class from elsewhere that cannot be imported does not stop the others: it has ``failed`` set.

    Args:
        specs: names and import paths, see the module docstring.
        sets: ``METHOD.NAME=VALUE``, fixing a hyper-parameter of one of them.
        spaces: ``METHOD.NAME=RANGE``, searching a hyper-parameter of one of them in that range.

    Raises:
        EntrantError: no method can be used, one appears twice under one name, or a setting is
            wrong.
        SpaceError: a range is wrong.
        UnknownMethodError: there is no such method; the message names the most similar.
        UnknownOptionError: there is no such hyper-parameter; the message names the most similar.
    """
    parsed = [_labelled(spec) for spec in specs]
    names = [name for name, _ in parsed]
    for name in names:
        if names.count(name) > 1:
            raise EntrantError(f"{name} takes part twice; rename one of them, such as again={name}")
    if not names:
        raise EntrantError("expected at least one method, such as --methods adamw,lion")
    fixed = _by_method(sets, names, "lr=1e-3")
    ranges = _by_method(spaces, names, "lr=log:1e-5..1e-1")
    found = [_attempt(spec, name, fixed[name], ranges[name]) for name, spec in parsed]
    reasons = [each.failed for each in found if each.failed is not None]
    if len(reasons) == len(found):
        raise EntrantError("; ".join(reasons))
    return found


def _attempt(spec: str, name: str, sets: Mapping[str, str], ranges: Mapping[str, str]) -> Entrant:
    try:
        return resolve(spec, name, sets, ranges)
    except EntrantError as error:
        return Entrant.unusable(name, spec, str(error))


def resolve(
    spec: str,
    name: str | None = None,
    sets: Mapping[str, Any] | None = None,
    ranges: Mapping[str, str] | None = None,
) -> Entrant:
    """Resolve one entrant; values in ``sets`` can be text from the command line."""
    label, sets, ranges = name or spec, sets or {}, dict(ranges or {})
    both = sorted(sets.keys() & ranges.keys())
    if both:
        raise SpaceError(f"{label}.{both[0]} has a fixed value and a range; remove one of them")
    try:
        tool = find(spec)
        if tool is not None:
            return _with_tool(tool, spec, label, sets, ranges)
    except ToolError as error:
        raise EntrantError(str(error)) from error
    cls, version = _find(spec)
    hypers = cls.hypers if issubclass(cls, Optimizer) else None
    if issubclass(cls, Optimizer):
        defaults = {key: each.default for key, each in cls.hypers.items()}
        refuse_unknown(ranges, defaults, cls.__name__)
        fixed = _checked(cls, sets, defaults)
        space = declared(cls.hypers, fixed)
    else:
        defaults, takes_all = _defaults(cls)
        if not takes_all:
            refuse_unknown([*sets, *ranges], defaults, label)
        fixed = {key: _literal(value) for key, value in sets.items()}
        _require_values(label, {**defaults, **fixed})
        space = foreign(cls, defaults, fixed, _declaring())
    try:
        space = user_space(space, ranges, defaults, hypers)
    except SpaceError as error:
        raise SpaceError(f"range of {label}.{error}") from error
    return Entrant(label, spec, cls, version, defaults, fixed, space, ranges)


def _with_tool(
    tool: Tool, spec: str, label: str, sets: Mapping[str, Any], ranges: dict[str, str]
) -> Entrant:
    """An entrant that runs its own loop."""
    fixed = {key: _literal(value) for key, value in sets.items()}
    main = tool.main if tool.main not in fixed else None
    space = by_name(main, tool.defaults[main]) if main is not None else ()
    try:
        space = user_space(space, ranges, tool.defaults, None)
    except SpaceError as error:
        raise SpaceError(f"range of {label}.{error}") from error
    started = {each.name: each.default for each in space if each.default is not None}
    tool.accepts({**started, **fixed})
    return Entrant(
        label, spec, torch.optim.Optimizer, tool.version, tool.defaults, fixed, space, ranges,
        tool=tool,
    )  # fmt: skip


@cache
def _declaring() -> dict[str, tuple[str, Mapping[str, Hyper]]]:
    """Name and hyper-parameters of every method of this library, by class name."""
    classes = [(name, methods.get(name)) for name in methods.names()]
    return {cls.__name__: (name, cls.hypers) for name, cls in classes}


def _labelled(text: str) -> tuple[str, str]:
    match = _LABEL.fullmatch(text.strip())
    return (match["label"], match["spec"]) if match else (text.strip(), text.strip())


def _by_method(
    texts: Iterable[str], names: Sequence[str], example: str
) -> dict[str, dict[str, str]]:
    """Options and their texts by method."""
    found: dict[str, dict[str, str]] = {name: {} for name in names}
    for each in texts:
        name, option, value = _setting(each, names, example)
        found[name][option] = value
    return found


def _setting(text: str, names: Sequence[str], example: str) -> tuple[str, str, str]:
    """Split ``METHOD.NAME=VALUE``.

    METHOD is a label, or the last part or the library of a unique one.
    """
    left, equals, value = text.partition("=")
    method, dot, option = left.strip().rpartition(".")
    if not equals or not dot or not option:
        raise EntrantError(f"expected METHOD.NAME=VALUE, such as adamw.{example}, got {text!r}")
    matching = [n for n in names if n == method] or [
        n
        for n in names
        if n.rpartition(":")[2] == method or (method in LIBRARIES and n.startswith(f"{method}:"))
    ]
    if len(matching) != 1:
        close = difflib.get_close_matches(method, names, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise EntrantError(
            f"{text!r} sets an option of {method!r}, which does not take part.{hint} "
            f"Methods: {', '.join(names)}"
        )
    return matching[0], option, value.strip()


# --- Classes -----------------------------------------------------------------------------------


def _find(spec: str) -> tuple[type[torch.optim.Optimizer], str]:
    """Return the class of a spec, and its version."""
    place, colon, attribute = spec.rpartition(":")
    if spec.endswith(".py"):
        place, colon, attribute = spec, ":", ""
    if not colon:
        return methods.get(spec), f"anyorder {anyorder.__version__}"
    if place.endswith(".py"):
        path = Path(place)
        module = _load_file(path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
        return _class_in(module, attribute, place, own=True), f"file {digest}"
    module = _import(place, spec)
    return _class_in(module, attribute, place), _version(module)


def _class_in(
    module: ModuleType, attribute: str, place: str, own: bool = False
) -> type[torch.optim.Optimizer]:
    found = {
        name: value
        for name, value in vars(module).items()
        if inspect.isclass(value)
        and issubclass(value, torch.optim.Optimizer)
        and value is not torch.optim.Optimizer
        and (not own or value.__module__ == module.__name__)
    }
    if not attribute and len(found) == 1:
        return next(iter(found.values()))
    offers = ", ".join(sorted(found)) or "none"
    if not attribute or not hasattr(module, attribute):
        close = difflib.get_close_matches(attribute, found, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        what = f"has no {attribute!r}" if attribute else "needs a class name, as in FILE.py:CLASS"
        raise EntrantError(f"{place} {what}.{hint} Optimizers there: {offers}")
    value = getattr(module, attribute)
    if not (inspect.isclass(value) and issubclass(value, torch.optim.Optimizer)):
        raise EntrantError(
            f"{place}:{attribute} is a {type(value).__name__}, expected a subclass of "
            f"torch.optim.Optimizer. Optimizers there: {offers}"
        )
    return value


def _import(name: str, spec: str) -> ModuleType:
    try:
        with _working_folder():
            return importlib.import_module(name)
    except Exception as error:
        raise EntrantError(
            f"cannot import {name!r} for the method {spec!r}: {type(error).__name__}: {error}. "
            "Write PACKAGE.MODULE:CLASS or FILE.py:CLASS"
        ) from error


@contextlib.contextmanager
def _working_folder() -> Generator[None]:
    """Make modules in the working folder importable, as ``python -m`` does."""
    added = os.getcwd()
    sys.path.insert(0, added)
    try:
        yield
    finally:
        sys.path.remove(added)


@cache
def _load_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise EntrantError(f"method file '{path}' does not exist (current folder: {Path.cwd()})")
    resolved = path.resolve()
    name = f"_anyorder_method_{hashlib.sha256(str(resolved).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, resolved)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise EntrantError(f"importing '{path}' failed: {type(error).__name__}: {error}") from error
    return module


def _version(module: ModuleType) -> str:
    top = module.__name__.partition(".")[0]
    distributions = metadata.packages_distributions().get(top, [top])
    with contextlib.suppress(metadata.PackageNotFoundError):
        return f"{distributions[0]} {metadata.version(distributions[0])}"
    source = getattr(module, "__file__", None)
    if source is None:
        return top
    return f"file {hashlib.sha256(Path(source).read_bytes()).hexdigest()[:12]}"


# --- Settings ----------------------------------------------------------------------------------


def _checked(
    cls: type[Optimizer], sets: Mapping[str, Any], defaults: Mapping[str, Any]
) -> dict[str, Any]:
    """Parse and check settings of a method of this library."""
    refuse_unknown(sets, defaults, cls.__name__)
    found: dict[str, Any] = {}
    for name, value in sets.items():
        each = cls.hypers[name]
        if isinstance(value, str):
            found[name] = each.parse(name, value)
        else:
            found[name] = tuple(cast(list[Any], value)) if isinstance(value, list) else value
            each.check(name, found[name])
    return found


def _defaults(cls: type) -> tuple[dict[str, Any], bool]:
    """Arguments of a foreign class with their defaults; whether it accepts ``**kwargs``."""
    try:
        parameters = list(inspect.signature(cls).parameters.values())
    except (TypeError, ValueError):
        return {}, True
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters)
    return {p.name: p.default for p in named[1:]}, takes_all


def _require_values(label: str, settings: Mapping[str, Any]) -> None:
    needed = [name for name, value in settings.items() if value is inspect.Parameter.empty]
    if needed:
        raise EntrantError(
            f"{label} needs a value for {', '.join(needed)}; write --set {label}.{needed[0]}=VALUE"
        )


def _literal(value: Any) -> Any:
    """A value from a command line or a stored plan, which has lists for tuples."""
    value = literal(value) if isinstance(value, str) else value
    return tuple(cast(list[Any], value)) if isinstance(value, list) else value
