"""Finding problems by name and in users' files."""

from __future__ import annotations

import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from anyorder.problems import Problem, ProblemError, check, load, names
from anyorder.problems import registry as module
from anyorder.problems.base import all_rows
from anyorder.problems.registry import candidates, load_file, nearest

BUILT_IN = names()

WHOLE = """
import torch
from anyorder.problems import Problem

class {name}(Problem):
    def __init__(self, *, width=2):
        self.width = width
    def build(self, seed):
        return torch.nn.Linear(self.width, 1)
    def batch(self, seed, step):
        return torch.ones(1, self.width)
    def loss(self, model, batch):
        return model(batch).square().mean()
    def evaluate(self, model):
        return {{"loss": 0.0}}
"""
MINE = WHOLE.format(name="Mine")


DOCS = Path(__file__).parents[3] / "docs"


class TestDocumentation:
    def test_example_is_on_the_page_and_works(self):
        example = DOCS / "examples" / "my_problem.py"
        page = (DOCS / "problems.md").read_text(encoding="utf-8")
        assert example.read_text(encoding="utf-8").rstrip() in page
        problem = load(example, width=16)
        assert problem.width == 16
        report = check(problem)
        assert report.findings == (), str(report)

    def test_example_can_be_learnt(self):
        problem = load(DOCS / "examples" / "my_problem.py")
        model = problem.build(0)
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-2)
        for step in range(200):
            optimizer.zero_grad()
            problem.loss(model, problem.batch(0, step)).backward()
            optimizer.step()
        assert problem.evaluate(model)[problem.metric] >= problem.target
        assert problem.test(model)[problem.metric] >= 0.9

    def test_table_says_what_the_problems_say(self):
        page = (DOCS / "problems.md").read_text(encoding="utf-8")
        table = page.split("## Built-in problems")[1].split("\n\n")[1]
        rows = [line.split("|")[1:-1] for line in table.splitlines() if line.startswith("| `")]
        said = {row[0].strip(" `"): [cell.strip() for cell in row[3:]] for row in rows}
        assert list(said) == BUILT_IN
        for name, (judged, schedule, options) in said.items():
            problem = load(name)
            word = "at least" if problem.goal == "max" else "at most"
            assert judged.split(" (")[0] == f"`{problem.metric}` {word} {problem.target}", name
            assert schedule == problem.schedule
            assert options == ", ".join(f"`{key}`" for key in problem.options())


class TestBuiltIn:
    def test_names_are_the_files(self):
        assert set(BUILT_IN) >= {
            "cancer", "digits", "fashion", "judged-cancer", "quadratic", "rastrigin", "rosenbrock",
            "stdlib-lm",
        }  # fmt: skip
        assert sorted(BUILT_IN) == BUILT_IN
        assert not any("_" in name for name in BUILT_IN)

    def test_a_new_file_is_a_new_name(self, monkeypatch, tmp_path):
        for file in ("base.py", "_hidden.py", "my_own.py", "notes.txt"):
            (tmp_path / file).touch()
        monkeypatch.setattr(module, "_FOLDER", tmp_path)
        assert names() == ["my-own"]

    @pytest.mark.parametrize("name", BUILT_IN)
    def test_each_is_a_problem_of_that_name(self, name):
        problem = load(name)
        assert isinstance(problem, Problem)
        assert problem.name == name
        assert type(problem).__doc__
        assert problem.target is not None

    @pytest.mark.parametrize("name", BUILT_IN)
    def test_each_passes_its_check(self, name):
        if name in ("digits", "cancer", "judged-cancer"):
            pytest.importorskip("sklearn", reason="needs scikit-learn")
        if name == "fashion" and "ANYORDER_DATA" not in os.environ:
            pytest.skip("ANYORDER_DATA is not set")
        report = check(load(name))
        assert not report.of("error") + report.of("warning"), str(report)
        assert set(report.seconds) == {"build", "batch", "loss", "backward", "evaluate"}

    @pytest.mark.parametrize(
        ("name", "count"),
        [("cancer", 113), ("digits", 300), ("fashion", 10_000), ("stdlib-lm", 1024)],
    )
    def test_test_data_has_rows(self, name, count):
        if name in ("digits", "cancer"):
            pytest.importorskip("sklearn", reason="needs scikit-learn")
        if name == "fashion" and "ANYORDER_DATA" not in os.environ:
            pytest.skip("ANYORDER_DATA is not set")
        problem = load(name)
        model = problem.build(0)
        outputs = problem.test_outputs(model)
        rows = all_rows(outputs)
        assert len(rows) == count
        whole = problem.score(outputs, rows.flip(0))  # in another order
        assert whole == pytest.approx(problem.test(model), rel=1e-5)
        halves = [problem.score(outputs, half) for half in rows.split(count // 2)[:2]]
        if count % 2 == 0:
            for key, value in whole.items():
                assert value == pytest.approx(sum(half[key] for half in halves) / 2, rel=1e-5)

    def test_registry_reads_nothing(self):
        """Neither the list nor a loaded problem imports scikit-learn or needs data."""
        code = (
            "import sys\n"
            "from anyorder.problems import load, names\n"
            "assert not [m for m in sys.modules if m.startswith('anyorder.problems.digits')]\n"
            "[load(name) for name in names()]\n"
            "assert 'sklearn' not in sys.modules\n"
        )
        environment = {k: v for k, v in os.environ.items() if k != "ANYORDER_DATA"}
        environment["PYTHONPATH"] = os.pathsep.join(sys.path)
        subprocess.run([sys.executable, "-c", code], check=True, env=environment)

    def test_options(self):
        assert load("quadratic", dim=3).dim == 3
        with pytest.raises(ProblemError) as caught:
            load("quadratic", conditon=3)
        assert str(caught.value) == (
            "unknown option 'conditon' of problem 'quadratic'; did you mean 'condition'? "
            "Its options: dim=20, condition=100.0."
        )

    def test_unknown_name(self):
        with pytest.raises(ProblemError, match=r"did you mean 'digits'.*Built-in problems: adult"):
            load("digit")
        with pytest.raises(ProblemError, match=r"unknown problem 'xyzzy'\. Built-in"):
            load("xyzzy")
        with pytest.raises(ProblemError, match="did you mean 'stdlib-lm'"):
            load("stdlib_lm")

    def test_names_that_are_files(self, monkeypatch, tmp_path):
        monkeypatch.chdir(tmp_path)
        Path("mine.py").touch()
        Path("notes.txt").touch()
        with pytest.raises(ProblemError, match=r"write 'mine\.py'"):
            load("mine")
        with pytest.raises(ProblemError, match=r"'notes\.txt' is not a \.py file"):
            load("notes.txt")
        with pytest.raises(ProblemError, match="is a folder"):
            load(".")

    def test_nearest(self):
        assert nearest("lambada", ["lambda", "x"]) == "; did you mean 'lambda'?"
        assert nearest("lambda", ["q"]) == "."


class TestFile:
    def test_class(self, write):
        path = write(MINE)
        problem = load(path, width=5)
        assert problem.name == "Mine"
        assert problem.width == 5
        assert load(Path(path)).width == 2

    def test_options_of_a_class(self, write):
        with pytest.raises(ProblemError, match=r"unknown option 'widht'.*'width'.*width=2"):
            load(write(MINE), widht=1)

    def test_option_without_a_default(self, write):
        path = write(MINE.replace("*, width=2", "*, width"))
        with pytest.raises(ProblemError, match="needs a value for width"):
            load(path)
        assert load(path, width=1).width == 1

    def test_class_without_options(self, write):
        text = MINE.replace("*, width=2", "").replace("= width", "= 2")
        with pytest.raises(ProblemError, match="'Mine' takes no options"):
            load(write(text), width=1)

    def test_instance(self, write):
        path = write(MINE + "\nmine = Mine(width=7)\n")
        assert load(path).width == 7
        with pytest.raises(ProblemError, match=r"'mine' in .* is already an instance.*width"):
            load(path, width=3)

    def test_function(self, write):
        path = write(MINE + "\ndef problem(scale=3):\n    return Mine(width=scale)\n")
        assert load(path).width == 3
        assert load(path, scale=4).width == 4
        with pytest.raises(ProblemError, match=r"unknown option 'width'.*scale=3"):
            load(path, width=4)

    def test_function_that_takes_anything(self, write):
        path = write(MINE + "\ndef problem(**options):\n    return Mine(**options)\n")
        assert load(path, width=4).width == 4

    def test_problem_wins_over_others(self, write):
        text = MINE + WHOLE.format(name="Other") + "\nproblem = Other\n"
        assert load(write(text)).name == "Other"

    def test_attribute(self, write):
        path = write(MINE + WHOLE.format(name="Other") + "\ndef make():\n    return Other()\n")
        assert load(f"{path}:Mine", width=9).width == 9
        assert load(f"{path}:make").name == "Other"
        with pytest.raises(ProblemError, match=r"has no 'Mien'; it defines Mine, Other; did you"):
            load(f"{path}:Mien")
        with pytest.raises(ProblemError, match=r"'torch' in .* is a value of type module"):
            load(f"{path}:torch")

    def test_imported_class_is_no_candidate_but_can_be_chosen(self, write):
        path = write("from anyorder.problems.quadratic import Quadratic\n")
        with pytest.raises(ProblemError, match="defines no problem"):
            load(path)
        assert load(f"{path}:Quadratic", dim=2).dim == 2

    def test_several(self, write):
        path = write(MINE + WHOLE.format(name="Other"))
        with pytest.raises(ProblemError) as caught:
            load(path)
        message = str(caught.value)
        assert "defines 2 problems: Mine, Other" in message
        assert f"'{path}:Mine', '{path}:Other'" in message

    def test_base_classes_and_aliases_are_no_second_candidates(self, write):
        text = (
            "from abc import abstractmethod\n"
            + MINE.replace("class Mine(Problem)", "class Base(Problem)").replace(
                "    def build", "    @abstractmethod\n    def extra(self): ...\n    def build"
            )
            + "\nclass Child(Base):\n    def extra(self): return 1\nAlias = Child\n"
        )
        loaded = load_file(Path(write(text)))
        assert list(candidates(loaded)) == ["Child"]

    def test_no_problem(self, write):
        with pytest.raises(ProblemError, match=r"defines no problem\. Write a subclass"):
            load(write("x = 1\n"))
        with pytest.raises(ProblemError, match="has no 'y'; it defines no problem"):
            load(write("x = 1\n") + ":y")

    def test_abstract_methods_are_named(self, write):
        text = (
            "from anyorder.problems import Problem\n"
            "class Mine(Problem):\n"
            "    def build(self, seed): ...\n"
            "    def loss(self, model, batch): ...\n"
        )
        with pytest.raises(
            ProblemError, match=r"Mine in .* lacks batch, evaluate\. Add:"
        ) as caught:
            load(write(text))
        assert re.search(r"def batch\(self, seed: .*int.*, step: .*\)", str(caught.value))

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("def problem():\n    return {}\n", "returned a value of type dict"),
            ("def problem():\n    pass\n", "returned None"),
            (MINE + "\ndef problem():\n    return Mine\n", r"the class Mine.*return Mine\(\)"),
            ("problem = 3\n", "'problem' in .* is a value of type int"),
            ("class problem:\n    pass\n", "'problem' in .* is the class problem"),
        ],
    )
    def test_wrong_kinds(self, write, text, message):
        with pytest.raises(ProblemError, match=message):
            load(write(text))

    def test_exception_while_making(self, write):
        path = write("def problem():\n    x = 1\n    raise KeyError('data')\n")
        with pytest.raises(
            ProblemError, match=r"creating 'problem' of .* in line 3: KeyError: 'data'"
        ):
            load(path)
        path = write("def problem():\n    raise SystemExit(3)\n")
        with pytest.raises(ProblemError, match="in line 2: SystemExit: 3"):
            load(path)

    def test_own_errors_pass_through(self, write):
        text = "from anyorder.problems import load\ndef problem():\n    return load('digit')\n"
        with pytest.raises(ProblemError, match=r"^unknown problem 'digit'"):
            load(write(text))

    def test_missing(self, tmp_path):
        with pytest.raises(ProblemError, match=r"nowhere\.py' does not exist \(current folder"):
            load(str(tmp_path / "nowhere.py"))
        (tmp_path / "folder.py").mkdir()
        with pytest.raises(ProblemError, match="is a folder"):
            load(str(tmp_path / "folder.py"))

    def test_syntax_error(self, write):
        path = write("x = 1\ndef problem(:\n    pass\n")
        with pytest.raises(ProblemError, match="line 2, is not valid Python") as caught:
            load(path)
        assert path in str(caught.value)
        assert "def problem(:" in str(caught.value)

    def test_not_text(self, tmp_path):
        path = tmp_path / "p.py"
        path.write_bytes(b"x = '\xff'\n")
        with pytest.raises(ProblemError, match=r"is not valid Python|cannot be read"):
            load(str(path))
        path.write_bytes(b"x = 1\0\n")
        with pytest.raises(ProblemError, match=r"is not valid Python|cannot be read"):
            load(str(path))

    def test_unreadable(self, write, monkeypatch):
        path = write(MINE)

        def refuse(self):
            raise PermissionError("not yours")

        monkeypatch.setattr(Path, "read_bytes", refuse)
        with pytest.raises(ProblemError, match="cannot be read as Python: not yours"):
            load(path)

    def test_a_callable_without_a_signature(self, write):
        with pytest.raises(ProblemError, match="creating 'problem' of .* failed: TypeError"):
            load(write("problem = max\n"))

    def test_a_file_that_breaks_leaves_what_was_loaded_before(self, write):
        problem = load(write(MINE))
        with pytest.raises(ProblemError):
            load(write(MINE + "\n1 / 0\n"))
        assert type(pickle.loads(pickle.dumps(problem))) is type(problem)

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("import not_there_at_all", "ModuleNotFoundError: No module named 'not_there_at_all'"),
            ("1 / 0", "ZeroDivisionError: division by zero"),
            ("raise SystemExit", "SystemExit"),
        ],
    )
    def test_exception_while_importing(self, write, line, message):
        path = write(f"x = 1\n\n{line}\n")
        before = set(sys.modules)
        with pytest.raises(ProblemError, match=f"importing .* failed in line 3: {message}"):
            load(path)
        assert not [name for name in set(sys.modules) - before if "my_problem" in name]


class TestImports:
    def test_helper_beside_the_file(self, write):
        write("WIDTH = 11\n", "helper_beside.py")
        path = write(f"from helper_beside import WIDTH\n{MINE}\nproblem = Mine(width=WIDTH)\n")
        before = list(sys.path)
        assert load(path).width == 11
        assert sys.path == before

    def test_path_is_put_back_after_a_failure(self, write):
        before = list(sys.path)
        with pytest.raises(ProblemError):
            load(write("import sys\nsys.path.append('x')\nraise ValueError\n"))
        assert sys.path == before

    def test_helpers_of_two_folders_are_not_confused(self, write):
        text = f"from helper_twice import WIDTH\n{MINE}\nproblem = Mine(width=WIDTH)\n"
        paths = []
        for width in (1, 2):
            write(f"WIDTH = {width}\n", f"folder{width}/helper_twice.py")
            paths.append(write(text, f"folder{width}/my_problem.py"))
        assert [load(path).width for path in (*paths, *reversed(paths))] == [1, 2, 2, 1]

    def test_an_edited_file_is_loaded_anew(self, write):
        assert load(write(MINE)).width == 2
        assert load(write(MINE.replace("width=2", "width=30"))).width == 30

    def test_relative_path(self, write, monkeypatch, tmp_path):
        write(MINE)
        monkeypatch.chdir(tmp_path)
        assert load("my_problem.py").name == load("./my_problem.py:Mine").name == "Mine"

    def test_dataclasses_and_pickle_work(self, write):
        text = (
            "from __future__ import annotations\nfrom dataclasses import dataclass\n"
            "@dataclass\nclass Setting:\n    width: int = 4\n"
            + MINE
            + "\nproblem = Mine(width=Setting().width)\n"
        )
        problem = load(write(text))
        assert pickle.loads(pickle.dumps(problem)).width == 4

    def test_file_that_is_run_is_not_the_main_module(self, write):
        problem = load(write(MINE + "\nif __name__ == '__main__':\n    raise RuntimeError\n"))
        assert torch.equal(problem.batch(0, 0), torch.ones(1, 2))
