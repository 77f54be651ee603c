"""Tasks from files, modules and commands; parameters in the form in which they were given."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from anyorder.judging.task import PROMPT, Task, TaskError, load_task
from anyorder.problems import ProblemError

EXAMPLES = Path(__file__).parents[3] / "docs/examples/rank"
PLAIN = 'parameters = {"x": 0.5}\ndef render(parameters): return str(parameters["x"])\n'
COMMAND = (
    "import json, sys\n"
    "given = json.load(open(sys.argv[1]))\n"
    "open(sys.argv[2], 'w').write(f\"{given['x']:.1f} and {given['y'][1]:.1f}\")\n"
)


def test_a_file_is_a_task(tmp_path: Path) -> None:
    file = tmp_path / "liked.py"
    file.write_text(PLAIN)
    task = load_task(str(file))
    assert (task.name, task.prompt, dict(task.parameters)) == ("liked", PROMPT, {"x": 0.5})
    assert task.shown(task.tensors()).text == "0.5"


@pytest.mark.parametrize(("name", "kind"), [("flower", "image"), ("bell", "sound")])
def test_the_examples_of_the_documentation_show_something_else_elsewhere(
    name: str, kind: str
) -> None:
    task = load_task(str(EXAMPLES / f"{name}.py"))
    start = task.tensors()
    here = task.shown(start)
    assert here.kind == kind and task.shown(start) == here
    for parameter in start:
        moved = task.shown({**start, parameter: start[parameter] + 0.3})
        assert moved.data != here.data, parameter


def test_a_file_may_hold_several(tmp_path: Path) -> None:
    file = tmp_path / "several.py"
    file.write_text(
        "class First:\n"
        "    prompt = 'Which?'\n"
        "    def __init__(self): self.parameters = {'x': [1, 2]}\n"
        "    def render(self, parameters): return parameters['x']\n"
    )
    task = load_task(f"{file}:First")
    assert (task.name, task.prompt) == ("First", "Which?")
    assert task.shown(task.tensors()).rows == (("1", "1"), ("2", "2"))
    with pytest.raises(TaskError, match="has no 'Second'"):
        load_task(f"{file}:Second")


def test_a_module_is_a_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "liked_module.py").write_text(PLAIN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert load_task("liked_module").name == "liked_module"
    monkeypatch.delitem(sys.modules, "liked_module")


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("no_such_module:task", "which is none of these"),
        ("math", "it lacks parameters and render"),
        ("math:pi", "it lacks parameters and render"),
    ],
)
def test_what_is_no_task_is_told(spec: str, says: str) -> None:
    with pytest.raises(TaskError, match=says):
        load_task(spec)


def test_a_file_that_cannot_be_imported_is_told(tmp_path: Path) -> None:
    with pytest.raises(ProblemError, match="does not exist"):
        load_task(str(tmp_path / "none.py"))


def test_parameters_come_in_the_form_in_which_they_were_given() -> None:
    parameters: dict[str, Any] = {
        "number": 1,
        "list": [[1.0, 2.0]],
        "array": np.array([1, 2]),
        "tensor": torch.tensor([1.0]),
        "whole": torch.tensor([3]),
    }
    seen: dict[str, Any] = {}

    def render(given: dict[str, Any]) -> str:
        seen.update(given)
        return ""

    task = Task("forms", parameters, render)
    tensors = task.tensors()
    dtypes = [t.dtype for t in tensors.values()]
    assert dtypes == [torch.float64] * 3 + [torch.float32, torch.float64]
    task.shown(tensors)
    assert seen["number"] == 1.0 and isinstance(seen["number"], float)
    assert seen["list"] == [[1.0, 2.0]]
    assert isinstance(seen["array"], np.ndarray) and isinstance(seen["tensor"], torch.Tensor)
    seen["array"][0] = 7  # its own copy
    assert tensors["array"][0] == 1


@pytest.mark.parametrize("wrong", ["high", None, float("nan"), [1, float("inf")], []])
def test_parameters_that_are_no_numbers_are_named(wrong: Any) -> None:
    with pytest.raises(TaskError, match="parameter size: expected"):
        Task("t", {"size": wrong}, str).tensors()
    with pytest.raises(TaskError, match="at least one parameter"):
        Task("t", {}, str).tensors()


def test_what_render_does_wrong_is_told() -> None:
    def fails(given: Any) -> str:
        raise KeyError("hue")

    for render, says in ((fails, "render of t failed: KeyError: 'hue'"), (lambda _: None, "NoneT")):
        task = Task("t", {"x": 1.0}, render)
        with pytest.raises(TaskError, match=says):
            task.shown(task.tensors())


# Commands ---------------------------------------------------------------------------------------


def folder_with(tmp_path: Path, toml: str) -> str:
    (tmp_path / "draw.py").write_text(COMMAND)
    (tmp_path / "task.toml").write_text(toml)
    return str(tmp_path)


def toml(*, command: str = "", output: str = "candidate.txt") -> str:
    command = command or f"[{sys.executable!r}, 'draw.py', '{{parameters}}', '{{output}}']"
    return (
        f"command = {command}\noutput = '{output}'\nprompt = 'Which?'\n"
        "[parameters]\nx = 1\ny = [2.0, 3.0]\n"
    )


def test_a_command_renders(tmp_path: Path) -> None:
    task = load_task(folder_with(tmp_path, toml()))
    assert (task.name, task.prompt) == (tmp_path.name, "Which?")
    assert task.shown(task.tensors()).text == "1.0 and 3.0"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "expected .*task.toml to hold"),
        ("command = [", "TOMLDecodeError"),
        (toml(output="../x.txt"), "to hold"),
        (toml(command="['draw']"), "to hold"),
        (toml(command="'draw {output}'"), "to hold"),
    ],
)
def test_descriptions_that_lack_something_are_refused(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(TaskError, match=says):
        load_task(folder_with(tmp_path, text))


def test_a_folder_without_a_description_is_told(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="FileNotFoundError"):
        load_task(str(tmp_path))


@pytest.mark.parametrize(
    ("program", "says"),
    [
        ("import sys; print('no colour', file=sys.stderr); sys.exit(3)", "code 3\nno colour"),
        ("pass", "wrote no {output}"),
    ],
)
def test_commands_that_fail_are_told(tmp_path: Path, program: str, says: str) -> None:
    command = json.dumps([sys.executable, "-c", program, "{output}"])
    task = load_task(folder_with(tmp_path, toml(command=command)))
    with pytest.raises(TaskError, match=says):
        task.shown(task.tensors())


def test_a_missing_command_is_told(tmp_path: Path) -> None:
    task = load_task(folder_with(tmp_path, toml(command="['no-such-command', '{output}']")))
    with pytest.raises(TaskError, match="no-such-command .*cannot be run"):
        task.shown(task.tensors())
