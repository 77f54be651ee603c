from __future__ import annotations

import csv
import io
import re
from dataclasses import replace

import example_results as example
import pytest

from anyorder.compare.report import exports, tables
from anyorder.compare.stats.leaderboard import summarise
from anyorder.compare.store.schema import Results


@pytest.fixture(scope="module")
def three() -> Results:
    """A comparison with test data and a target."""
    runs: dict[str, list[list[float | None]]] = {
        name: [[1.0, 0.5, last + 0.01 * s] for s in range(3)]
        for name, last in (("slow_one", 0.4), ("fast & good", 0.1), ("100%", 0.2))
    }
    results = example.made_up(runs)
    for one in (run for method in results.methods for run in method.runs):
        one.test = {"score": one.final.metric}
    return results


def test_markdown(three: Results) -> None:
    text = exports.markdown(three)
    assert text.startswith("# 3 methods on made up\n")
    rows = [line for line in text.split("## Leaderboard")[1].splitlines() if line.startswith("|")]
    names = [line.split("|")[2].split(" (")[0].strip() for line in rows[2:5]]
    assert names == ["fast &amp; good", "100%", "slow\\_one"]
    assert text.index("fast &amp; good is first") < text.index("- problem: made up")
    assert "## Test data" in text
    assert text.rstrip().endswith("```")


def test_the_twin_is_no_method_of_the_title(three: Results) -> None:
    twin = replace(three.methods[0], name="slow_one (A/A)", twin_of="slow_one")
    assert exports.title(replace(three, methods=[*three.methods, twin])) == "3 methods on made up"


def test_markdown_escapes() -> None:
    text = exports.markdown(example.hostile()["names"])
    before, _, command = text.partition("## Reproduce")
    assert "<script>" not in before
    board = [line for line in before.splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in board[:4]}) == 1
    assert "```sh" in command


def test_curves_hold_every_evaluation_as_it_was_recorded(three: Results) -> None:
    rows = list(csv.DictReader(io.StringIO(exports.curves(three))))
    points = [
        (method.name, run.seed, point)
        for method in three.methods
        for run in method.runs
        for point in run.curve
    ]
    assert len(rows) == len(points)
    for row, (name, seed, point) in zip(rows, points, strict=True):
        assert (row["method"], int(row["seed"])) == (name, seed)
        for key in ("seconds", "forwards", "steps", "val_loss", "metric", "oracle_seconds"):
            assert float(row[key]) == getattr(point, key)
        assert int(row["grads"]) == point.calls.grads
        assert row["train_loss"] == ("" if point.train_loss is None else str(point.train_loss))


def test_markdown_lists_warnings_of_runs(three: Results) -> None:
    assert "Warnings of runs" not in exports.markdown(three)
    results = example.made_up({"a": [[1.0, 0.1]] * 5})
    for one in results.methods[0].runs:
        one.warnings = ["UserWarning: *slow*"]
    said = "- **a**, seed 0, seed 1, seed 2 and 2 more runs: UserWarning: \\*slow\\*"
    assert said in exports.markdown(results).splitlines()


def test_latex(three: Results) -> None:
    lines = exports.latex(three).splitlines()
    body = lines[lines.index(r"\midrule") + 1 : lines.index(r"\bottomrule")]
    cells = [line.removesuffix(r" \\").split(" & ") for line in body]
    assert [row[1] for row in cells] == [r"fast \& good", r"100\%", r"slow\_one"]
    board = tables.leaderboard(three)
    shown = [name for name in board.head if name != "remarks"]
    assert {len(row) for row in cells} == {len(shown)}
    columns = next(line for line in lines if line.startswith(r"\begin{tabular}"))
    assert len(columns.rpartition("{")[2].strip("}")) == len(shown)
    assert "fast \\& good is first" in next(line for line in lines if "caption" in line)


COMMANDS = set(
    """begin end centering footnotesize setlength tabcolsep caption toprule midrule bottomrule
    shortstack par smallskip textbackslash textasciitilde textasciicircum textless textgreater
    textbar infty geq leq times""".split()
)


def sound(text: str) -> None:
    """Check what LaTeX would refuse, as far as that can be told without it."""
    opened: list[str] = []
    maths, cells = False, [0]
    columns = len(re.findall(r"\\begin{tabular}{([lr]+)}", text)[0])
    for token in re.findall(r"\\(?:begin|end){\w+}|\\[A-Za-z]+|\\.|.", text, re.DOTALL):
        inside = opened[-1] if opened else ""
        if found := re.fullmatch(r"\\(begin|end){(\w+)}", token):
            if found[1] == "begin":
                opened.append(found[2])
            else:
                assert opened.pop() == found[2]
        elif token == "{":
            opened.append("{")
        elif token == "}":
            assert opened.pop() == "{"
        elif token == "$":
            maths = not maths
        elif token == "&":
            assert inside == "tabular" and not maths
            cells[-1] += 1
        elif token == "\\\\":
            if inside == "tabular":
                cells.append(0)
            else:
                assert "{" in opened  # of a stack of lines
        elif re.fullmatch(r"\\[A-Za-z]+", token):
            assert token[1:] in COMMANDS
        elif token.startswith("\\"):
            assert token[1] in "&%$#_{}"
        else:
            assert token not in "#_%^~"
            assert token == "\n" or 32 <= ord(token) <= 0x17F
    assert not opened
    assert not maths
    assert set(cells[:-1]) == {columns - 1}
    assert cells[-1] == 0


@pytest.mark.parametrize("name", list(example.hostile()))
def test_latex_is_sound(name: str) -> None:
    comment, text = exports.latex(example.hostile()[name]).split("\n", 1)
    assert comment.startswith("%")
    sound(text)


def test_latex_of_odd_names_is_sound() -> None:
    names = [
        "a_b^c~d",
        "100% & more",
        "$x$ {y} \\end{table}",
        '"quoted" <t> |',
        "[0] # 1",
        "Ω 中 é\x07",
    ]
    runs: dict[str, list[list[float | None]]] = {
        name: [[1.0, 0.1 + 0.1 * i]] * 3 for i, name in enumerate(names)
    }
    text = exports.latex(example.made_up(runs)).split("\n", 1)[1]
    sound(text)
    assert r"\$x\$ \{y\} \textbackslash{}end\{table\}" in text
    assert "''quoted''" in text
    assert "U+03A9 U+4E2D éU+0007" in text


def test_the_leaderboard_as_csv_has_unrounded_numbers(three: Results) -> None:
    rows = list(csv.DictReader(io.StringIO(exports.board(three))))
    found = summarise(three)
    assert [row["method"] for row in rows] == [each.name for each in found]
    assert [float(row["test score"]) for row in rows] == [each.judged for each in found]
    assert [float(row["seconds"]) for row in rows] == [each.seconds for each in found]
    assert [row["place"] for row in rows] == ["1", "2", "3"]


def test_facts_say_how_much_was_tuned() -> None:
    results = example.made_up({"a": [[1.0, 0.1]]}, options={"width": 8})
    facts = dict(exports.facts(results))
    assert facts["problem"] == "made up (width=8)"
    assert (facts["tuning of a method"], facts["budget of a run"]) == ("none", "150 forwards")
    assert "memory limit of a run" not in facts
    settings = replace(results.plan.settings, tune=4, tunings=2, seeds=3, memory="2GiB")
    results.plan = replace(results.plan, settings=settings)
    facts = dict(exports.facts(results))
    assert facts["tuning of a method"] == "2 tunings of 4 trials"
    assert facts["report seeds"] == "3 per tuning"
    assert facts["memory limit of a run"] == "2.0 GiB"
