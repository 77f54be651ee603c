"""What a person ranks: parameters, and a function that shows them.

A task is a Python module or object with

- ``parameters``: a dict of numbers, lists of numbers, arrays or tensors, the point to begin at;
- ``render(parameters)``: returns a text, numbers, an image or a sound, see
  :func:`~anyorder.judging.media.media_of`; it gets the parameters of one candidate, each in the
  form in which it stands in ``parameters``;
- ``prompt`` (optional): the question that stands above the candidates;

or a folder with a file ``task.toml`` that names a command, for generators that are not in Python.
"""

from __future__ import annotations

import importlib
import inspect
import json
import shlex
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from anyorder.errors import AnyOrderError
from anyorder.judging.media import Media, media_of
from anyorder.problems.registry import load_file, say

FILE = "task.toml"
PROMPT = "Which do you like best?"


class TaskError(AnyOrderError, ValueError):
    """A task that cannot be used, or a candidate that cannot be rendered."""


@dataclass(frozen=True)
class Task:
    """Parameters to optimise, and how to show them.

    Args:
        name: for the session's folder.
        parameters: the point to begin at: numbers, lists of numbers, arrays or tensors, by name.
        render: shows the parameters of one candidate.
        prompt: the question to the person.
    """

    name: str
    parameters: Mapping[str, Any]
    render: Callable[[dict[str, Any]], Any]
    prompt: str = PROMPT

    def tensors(self) -> dict[str, Tensor]:
        """The point to begin at, in float64 unless it is a tensor of floats already.

        Raises:
            TaskError: something is not a number, not finite, or there is nothing.
        """
        if not self.parameters:
            raise TaskError(f"{self.name}: expected at least one parameter, got none")
        return {name: _tensor(name, value) for name, value in self.parameters.items()}

    def shown(self, candidate: Mapping[str, Tensor]) -> Media:
        """Render one candidate.

        Raises:
            TaskError: ``render`` failed, or returned something that cannot be shown.
        """
        given = {n: _like(self.parameters[n], value) for n, value in candidate.items()}
        try:
            return media_of(self.render(given))
        except AnyOrderError as error:
            raise TaskError(f"{self.name}: {error}") from error
        except Exception as error:
            raise TaskError(f"render of {self.name} failed: {say(error)}") from error


def load_task(spec: str) -> Task:
    """Load a task.

    Args:
        spec: ``FILE.py``, ``FILE.py:NAME``, ``MODULE``, ``MODULE:NAME``, or a folder with a file
            ``task.toml``. A class is created without arguments.

    Raises:
        TaskError: there is none, or it lacks something.
        ProblemError: the file cannot be imported.
    """
    if Path(spec).is_dir():
        return _of_command(Path(spec).resolve())
    path, _, name = spec.rpartition(":") if not spec.endswith(".py") else (spec, "", "")
    path, name = (path, name) if path else (name, "")
    if path.endswith(".py"):
        found: Any = load_file(Path(path))
    else:
        found = _module(path, spec)
    for part in filter(None, name.split(".")):
        if not hasattr(found, part):
            raise TaskError(f"{path} has no {part!r}")
        found = getattr(found, part)
    if inspect.isclass(found):
        found = found()
    missing = [word for word in ("parameters", "render") if not hasattr(found, word)]
    if missing or not isinstance(found.parameters, Mapping) or not callable(found.render):
        raise TaskError(
            f"expected {spec} to define parameters, a dict, and render(parameters), a function"
            f"{'; it lacks ' + ' and '.join(missing) if missing else ''}. Write\n"
            '    parameters = {"size": 0.5}\n'
            "    def render(parameters): return ...  # text, numbers, image or sound"
        )
    named = name.rpartition(".")[2] or Path(path).stem
    prompt = str(getattr(found, "prompt", PROMPT))
    return Task(named, dict(found.parameters), found.render, prompt)


def _module(name: str, spec: str) -> Any:
    here = str(Path.cwd())
    if here not in sys.path:  # as python -m does
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not name.startswith(error.name):
            raise TaskError(f"importing {name} failed: {say(error)}") from error
    except ValueError:
        pass
    except Exception as error:
        raise TaskError(f"importing {name} failed: {say(error)}") from error
    raise TaskError(
        f"expected FILE.py, MODULE:NAME or a folder with {FILE}, got {spec!r}, which is none of "
        "these"
    )


# Commands ---------------------------------------------------------------------------------------


def _of_command(folder: Path) -> Task:
    """The task of a folder: a command that writes a file for each candidate."""
    file = folder / FILE
    try:
        described = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TaskError(f"expected a task in {file}: {say(error)}") from error
    command, output = described.get("command"), described.get("output")
    parameters, prompt = described.get("parameters"), described.get("prompt", PROMPT)
    texts = isinstance(command, list) and all(isinstance(word, str) for word in command)  # pyright: ignore
    if (
        not (texts and isinstance(output, str) and isinstance(parameters, dict))
        or Path(output).name != output
        or not any("{output}" in word for word in command)  # pyright: ignore
    ):
        raise TaskError(
            f"expected {file} to hold\n"
            '    command = ["python", "draw.py", "{parameters}", "{output}"]\n'
            '    output = "candidate.png"\n'
            "    [parameters]\n"
            "    size = 0.5"
        )
    words: list[str] = command  # pyright: ignore

    def render(given: dict[str, Any]) -> Media:
        with tempfile.TemporaryDirectory() as scratch:
            return media_of(_run(words, folder, given, Path(scratch) / output))

    return Task(folder.name, parameters, render, str(prompt))  # pyright: ignore


def _run(command: list[str], folder: Path, given: dict[str, Any], output: Path) -> Media:
    """Run the command for one candidate; the file that it wrote."""
    source = output.parent / "parameters.json"
    source.write_text(json.dumps(given), encoding="utf-8")
    places = {"{parameters}": str(source), "{output}": str(output)}
    words = [_filled(word, places) for word in command]
    try:
        done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    except OSError as error:
        raise TaskError(f"the command {shlex.join(command)} cannot be run: {error}") from error
    if done.returncode or not output.is_file():
        what = f"ended with exit code {done.returncode}" if done.returncode else "wrote no {output}"
        raise TaskError(f"the command {shlex.join(command)} {what}\n{done.stderr[-2000:]}".rstrip())
    return media_of(output)


def _filled(word: str, places: Mapping[str, str]) -> str:
    for mark, text in places.items():
        word = word.replace(mark, text)
    return word


# Parameters -------------------------------------------------------------------------------------


def _tensor(name: str, value: Any) -> Tensor:
    try:
        if isinstance(value, Tensor):
            found = value.detach().cpu().clone()
        else:
            found = torch.as_tensor(np.array(value, dtype=np.float64))
    except (TypeError, ValueError) as error:
        raise TaskError(f"parameter {name}: expected numbers, got {value!r}") from error
    found = found if found.is_floating_point() else found.double()
    if not found.numel() or not bool(found.isfinite().all()):
        raise TaskError(f"parameter {name}: expected finite numbers, got {value!r}")
    return found


def _like(model: Any, value: Tensor) -> Any:
    """``value`` in the form of ``model``: a tensor, an array, a list or a number."""
    if isinstance(model, Tensor):
        return value.clone()
    if isinstance(model, np.ndarray):
        return value.numpy().copy()
    return value.tolist()  # of no dimension: a number
