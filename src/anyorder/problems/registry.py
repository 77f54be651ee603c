"""Load problems: built-in ones by name, user-defined ones by file path."""

from __future__ import annotations

import difflib
import hashlib
import importlib
import inspect
import re
import sys
import traceback
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from os import PathLike, fspath
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from anyorder.errors import AnyOrderError
from anyorder.problems.base import Problem, ProblemError, options_of

_FOLDER = Path(__file__).parent
# Files in this folder that are not problems, besides those whose name begins with "_".
_NOT_PROBLEMS = frozenset({"base", "check", "registry"})
# A Python file, optionally followed by a colon and the name of an attribute.
_FILE_SPEC = re.compile(r"(?P<path>.*\.py)(?::(?P<attribute>.*))?", re.DOTALL)
# Modules next to user files that loading added to sys.modules; see _import_folder.
_helpers: set[str] = set()


def names() -> list[str]:
    """Return the names of the built-in problems, sorted; imports nothing."""
    stems = (path.stem for path in _FOLDER.glob("*.py"))
    return sorted(
        stem.replace("_", "-")
        for stem in stems
        if stem not in _NOT_PROBLEMS and not stem.startswith("_")
    )


def load(spec: str | PathLike[str], /, **options: Any) -> Problem:
    """Return a problem, built-in or from a user's file.

    A user's file defines a ``Problem`` subclass, an instance of one, or a function ``problem()``
    that returns one. An attribute named ``problem`` takes precedence; among several other
    candidates, ``file.py:attribute`` selects one.

    Args:
        spec: A name from ``names()``, or the path of a ``.py`` file, optionally with
            ``:attribute``.
        **options: Options of the problem; see ``Problem.options``.

    Returns:
        The problem; it has not read its data yet.

    Raises:
        ProblemError: If there is no such problem, the file cannot be imported or defines no
            problem, or an option is unknown or wrong. The message says how to fix it.

    Example:
        >>> from anyorder.problems import load
        >>> load("rosenbrock", dim=10).optimum
        0.0
    """
    spec = fspath(spec)
    match = _FILE_SPEC.fullmatch(spec)
    if match:
        module = load_file(Path(match["path"]))
        return _from_module(module, spec, match["path"], match["attribute"], options)
    if spec in names():
        module = importlib.import_module(f"{__package__}.{spec.replace('-', '_')}")
        return _from_module(module, f"problem '{spec}'", None, None, options)
    raise ProblemError(_unknown(spec))


def _unknown(spec: str) -> str:
    """Return the error message for a spec that is neither a name nor a ``.py`` file."""
    known = names()
    if Path(spec).is_dir():
        return f"'{spec}' is a folder; pass the path of a .py file that defines a problem."
    if Path(spec).is_file():
        return f"'{spec}' is not a .py file; a problem must be defined in Python."
    if Path(f"{spec}.py").is_file():
        return f"unknown problem '{spec}'; for the file of that name write '{spec}.py'."
    return (
        f"unknown problem '{spec}'{nearest(spec, known)} Built-in problems: {', '.join(known)}. "
        "For your own problem, pass the path of its .py file."
    )


def nearest(word: str, known: list[str]) -> str:
    """End a sentence: ``"; did you mean 'x' or 'y'?"``, or ``"."`` without a similar name."""
    close = difflib.get_close_matches(word, known, n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(map(repr, close))}?" if close else "."


# --- Files -------------------------------------------------------------------------------------


def load_file(path: Path) -> ModuleType:
    """Run a user's file as a separate module and return it.

    While the file runs, its folder is first on ``sys.path``, so it can import modules from there
    at its top; afterwards ``sys.path`` is restored. Loading a file again runs it again.

    Raises:
        ProblemError: If the file is missing, is not valid Python, or raises an exception.
    """
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise ProblemError(f"problem file '{path}' {what} (current folder: {Path.cwd()}).")
    path = path.resolve()
    code = _compile(path)
    digest = hashlib.sha256(str(path).encode()).hexdigest()[:12]
    name = f"_anyorder_problem_{digest}_{re.sub(r'[^0-9A-Za-z]', '_', path.stem)}"
    module = ModuleType(name)
    module.__file__ = str(path)
    # Dataclasses and pickle look up a class in the module it names.
    before = sys.modules.get(name)
    sys.modules[name] = module
    try:
        with _import_folder(path.parent):
            exec(code, module.__dict__)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        if before is not None:
            sys.modules[name] = before
        raise ProblemError(
            f"importing '{path}' failed{place_of(error, path)}: {say(error)}"
        ) from error
    return module


def _compile(path: Path) -> Any:
    try:
        return compile(path.read_bytes(), str(path), "exec", dont_inherit=True)
    except SyntaxError as error:
        line = f"\n    {error.text.strip()}" if error.text else ""
        raise ProblemError(
            f"'{path}', line {error.lineno}, is not valid Python: {error.msg}{line}"
        ) from error
    except (OSError, ValueError) as error:
        raise ProblemError(f"'{path}' cannot be read as Python: {error}") from error


@contextmanager
def _import_folder(folder: Path) -> Generator[None, None, None]:
    """Make the modules in ``folder`` importable inside the block.

    Modules imported by earlier files are removed first: two folders may each have a ``data.py``,
    and the second file must not import the first one.
    """
    for helper in _helpers:
        sys.modules.pop(helper, None)
    _helpers.clear()
    importlib.invalidate_caches()
    path, known = list(sys.path), set(sys.modules)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path[:] = path
        for name in set(sys.modules) - known:
            origin = getattr(sys.modules[name], "__file__", None)
            if origin is not None and Path(origin).resolve().is_relative_to(folder):
                _helpers.add(name)


def say(error: BaseException) -> str:
    """Return the type and message of an exception, on one line if possible."""
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def place_of(error: BaseException, path: Path) -> str:
    """Return ``" in line n"`` for the deepest frame of the exception in the file."""
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename == str(path)
    ]
    return f" in line {lines[-1]}" if lines else ""


# --- From a module to a problem ----------------------------------------------------------------


def _from_module(
    module: ModuleType,
    spec: str,
    path: str | None,
    attribute: str | None,
    options: Mapping[str, Any],
) -> Problem:
    """Choose a candidate from the module and make a problem of it."""
    found = candidates(module)
    if attribute is not None:
        if not hasattr(module, attribute):
            known = list(found)
            offers = f"; it defines {', '.join(known)}" if known else "; it defines no problem"
            raise ProblemError(f"'{path}' has no '{attribute}'{offers}{nearest(attribute, known)}")
        return _make(getattr(module, attribute), attribute, spec, module, options)
    if not found:
        raise ProblemError(
            f"{spec} defines no problem. Write a subclass of anyorder.problems.Problem, "
            "or a function problem() that returns an instance of one."
        )
    if "problem" not in found and len(found) > 1:
        choices = ", ".join(f"'{path}:{name}'" for name in found)
        raise ProblemError(
            f"{spec} defines {len(found)} problems: {', '.join(found)}. Choose one by writing "
            f"{choices}, or name one of them 'problem' in the file."
        )
    name = "problem" if "problem" in found else next(iter(found))
    return _make(found[name], name, spec, module, options)


def candidates(module: ModuleType) -> dict[str, Any]:
    """Return the possible problems in a module, by name, in order of definition.

    Candidates are any object named ``problem``, instances of ``Problem``, and the subclasses
    defined in the module. The base class or type of another candidate is excluded, and so is an
    abstract class unless it is the only candidate.
    """
    found: dict[str, Any] = {}
    for name, value in vars(module).items():
        is_own = inspect.isclass(value) and value.__module__ == module.__name__
        is_problem = isinstance(value, Problem) or (is_own and issubclass(value, Problem))
        is_alias = any(value is other for other in found.values())
        if (name == "problem" and not inspect.ismodule(value)) or (is_problem and not is_alias):
            found[name] = value
    types: set[type] = {type(value) for value in found.values()}
    whole = {
        name: value
        for name, value in found.items()
        if not (inspect.isclass(value) and (inspect.isabstract(value) or value in types))
    }
    return whole or found


def _make(
    value: Any, name: str, spec: str, module: ModuleType, options: Mapping[str, Any]
) -> Problem:
    """Turn a class, an instance or a function into a problem."""
    if isinstance(value, Problem):
        if options:
            raise ProblemError(
                f"'{name}' in {spec} is already an instance and takes no options; "
                f"got {', '.join(options)}. Define the class or a function problem() instead."
            )
        return value
    if inspect.isclass(value) and issubclass(value, Problem):
        _require_complete(value, spec)
    elif inspect.isclass(value) or not callable(value):
        raise ProblemError(
            f"'{name}' in {spec} is {describe(value)}; expected a subclass of Problem, an "
            "instance of one, or a function that returns one."
        )
    maker = cast(Callable[..., Any], value)
    _require_options(maker, name, spec, options)
    try:
        made = maker(**options)
    except AnyOrderError:
        raise
    except (Exception, SystemExit) as error:
        place = place_of(error, Path(str(module.__file__)))
        raise ProblemError(f"creating '{name}' of {spec} failed{place}: {say(error)}") from error
    if not isinstance(made, Problem):
        advice = f"; return {made.__name__}()" if inspect.isclass(made) else ""
        raise ProblemError(
            f"'{name}' in {spec} returned {describe(made)}; expected an instance of "
            f"Problem{advice}."
        )
    return made


def describe(value: object) -> str:
    """Describe the type of a value for an error message."""
    if inspect.isclass(value):
        return f"the class {value.__name__}"
    return "None" if value is None else f"a value of type {type(value).__name__}"


def _require_complete(kind: type[Problem], spec: str) -> None:
    """Raise ``ProblemError`` if a subclass lacks required methods, and name them."""
    missing: frozenset[str] = getattr(kind, "__abstractmethods__", frozenset())
    if missing:
        methods = [
            f"def {name}{inspect.signature(getattr(kind, name))}" for name in sorted(missing)
        ]
        raise ProblemError(
            f"{kind.__name__} in {spec} lacks {', '.join(sorted(missing))}. Add:\n    "
            + "\n    ".join(methods)
        )


def _require_options(
    maker: Callable[..., Any], name: str, spec: str, options: Mapping[str, Any]
) -> None:
    """Raise ``ProblemError`` for unknown or missing options."""
    try:
        signature = inspect.signature(maker)
    except (TypeError, ValueError):  # no signature: the call itself will raise
        return
    known = options_of(maker)
    takes_all = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())
    listed = ", ".join(
        key if default is inspect.Parameter.empty else f"{key}={default!r}"
        for key, default in known.items()
    )
    for option in options:
        if option not in known and not takes_all:
            raise ProblemError(
                f"unknown option '{option}' of {spec}{nearest(option, list(known))} "
                + (f"Its options: {listed}." if known else f"'{name}' takes no options.")
            )
    needed = [
        key
        for key, default in known.items()
        if default is inspect.Parameter.empty and key not in options
    ]
    if needed:
        raise ProblemError(
            f"{spec} needs a value for {', '.join(needed)}. Set the option, or give it a "
            f"default in the signature of '{name}'."
        )
