"""The check as a whole: its report, its manners, and that nothing makes it fall over."""

from __future__ import annotations

import itertools
import json
import random

import numpy as np
import pytest
import torch

from anyorder.problems import check, load
from anyorder.problems.check import Finding, Report


class TestReport:
    def test_good_problem(self, good, monkeypatch):
        ticks = itertools.count()
        monkeypatch.setattr("time.perf_counter", lambda: next(ticks) / 1000)  # each look takes 1 ms
        report = check(good())
        assert report.ok
        assert report.findings == (), str(report)
        assert report.parameters == 21
        parts = ("build", "batch", "loss", "backward", "evaluate")
        assert report.seconds == pytest.approx(dict.fromkeys(parts, 0.001))
        assert str(report) == "good: no errors"

    def test_to_dict_is_json(self, good):
        class Bad(good):
            def evaluate(self, model):
                return {"loss": torch.tensor(1.0), "error": 1.0}

        report = check(Bad())
        data = json.loads(json.dumps(report.to_dict()))
        assert data["problem"] == "Bad"
        assert data["ok"] is False
        assert data["parameters"] == 21
        assert data["seconds"].keys() == report.seconds.keys()
        (finding,) = data["findings"]
        assert finding.keys() == {"level", "topic", "found", "instead", "where"}
        assert finding["topic"] == "evaluate"

    def test_errors_come_first(self, good):
        class Bad(good):
            def build(self, seed):
                return torch.nn.Linear(3, 1)  # from the global state: an error and an info

            def batch(self, seed, step):
                return super().batch(0, 0)  # an info

            def evaluate(self, model):
                return {"error": 0.0}  # an error and a warning

        levels = [finding.level for finding in check(Bad()).findings]
        assert levels == sorted(levels, key=["error", "warning", "info"].index)
        assert set(levels) == {"error", "warning", "info"}

    def test_text(self):
        finding = Finding("error", "loss", "is bad", "Write\nthis.", "file.py:3")
        report = Report("p", (finding, Finding("info", "batch", "is big")), {}, 3)
        assert not report.ok
        assert str(report).splitlines() == [
            "p: not usable yet",
            "error: loss: is bad (file.py:3)",
            "    Write",
            "    this.",
            "info: batch: is big",
        ]
        assert [f.topic for f in report.of("info")] == ["batch"]


class TestManners:
    def test_random_states_are_kept(self, good):
        def states():
            old = np.random.get_state()  # noqa: NPY002 -- what users may draw from
            return torch.get_rng_state().tolist(), old[1].tolist(), random.getstate()

        before = states()
        check(good())
        assert states() == before

    def test_seed_is_used(self, good):
        seeds = set()

        class Noting(good):
            def batch(self, seed, step):
                seeds.add(seed)
                return super().batch(seed, step)

        check(Noting(), seed=40)
        assert seeds == {40, 41}

    def test_test_data_is_touched_once(self, good):
        calls = []

        class Noting(good):
            def test(self, model):
                calls.append(1)
                return {"loss": 1.0}

        assert check(Noting()).ok
        assert len(calls) == 1


class TestNeverCrashes:
    def test_not_a_problem(self, good):
        (finding,) = check("digits").findings
        assert finding.found == "a value of type str is not a problem"
        (finding,) = check(good).findings
        assert finding.instead == "Pass an instance: check(Good())."

    @pytest.mark.parametrize("method", ["build", "batch", "loss", "evaluate", "test"])
    @pytest.mark.parametrize("error", [ZeroDivisionError("x"), SystemExit(1), RecursionError("y")])
    def test_any_method_may_raise(self, good, method, error):
        def broken(self, *args):
            raise error

        report = check(type("Bad", (good,), {method: broken})())
        (finding,) = (f for f in report.findings if f.topic == method)
        assert finding.level == "error"
        assert finding.found.startswith(f"raised {type(error).__name__}")
        assert "test_check.py:" in finding.where
        assert finding.instead

    @pytest.mark.parametrize("attribute", ["name", "metric", "target", "optimum"])
    def test_any_attribute_may_raise(self, good, attribute):
        def broken(self):
            raise OSError("no data")

        report = check(type("Bad", (good,), {attribute: property(broken)})())
        assert any("raised OSError: no data" in finding.found for finding in report.findings)

    @pytest.mark.parametrize("method", ["build", "batch", "loss", "evaluate", "test"])
    @pytest.mark.parametrize("value", [None, 3, "text", [], {}, object(), torch.ones(2), {1: 2}])
    def test_any_method_may_return_anything(self, good, method, value):
        report = check(type("Bad", (good,), {method: lambda self, *args: value})())
        harmless = (
            (method == "test" and value in (None, {})) if not torch.is_tensor(value) else False
        )
        assert report.ok == harmless
        json.dumps(report.to_dict())

    def test_place_in_the_users_file(self, write):
        path = write(
            "import torch\n"
            "from anyorder.problems import Problem\n"
            "def inner(model, batch):\n"
            "    return model(batch)\n"
            "class Mine(Problem):\n"
            "    def build(self, seed):\n"
            "        return torch.nn.Linear(2, 1)\n"
            "    def batch(self, seed, step):\n"
            "        return torch.ones(4, 3)\n"
            "    def loss(self, model, batch):\n"
            "        return inner(model, batch).sum()\n"
            "    def evaluate(self, model):\n"
            "        return {'loss': 1 / 0}\n"
        )
        places = {f.topic: f.where for f in check(load(path)).of("error") if "raised" in f.found}
        assert places == {"loss": f"{path}:4", "evaluate": f"{path}:13"}

    def test_missing_data_is_a_finding(self, monkeypatch):
        monkeypatch.delenv("ANYORDER_DATA", raising=False)
        report = check(load("fashion"))
        assert not report.ok
        assert any("ANYORDER_DATA is not set" in f.found for f in report.of("error"))
