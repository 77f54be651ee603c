"""Looking at a problem without disturbing it."""

from __future__ import annotations

import dataclasses
import random
import threading

import numpy as np
import pytest
import torch
from torch import nn

from anyorder.problems import load
from anyorder.problems._acceptance import (
    Bench,
    Snapshot,
    close,
    copied,
    definition,
    kept_random_state,
    place,
    reseed,
    same,
    some,
    source_line,
    tensors_of,
    trainable,
    watched_backward,
)


@dataclasses.dataclass
class Record:
    x: torch.Tensor
    n: int = 0


class Opaque:
    """Without __eq__."""


class Hostile:
    def __eq__(self, other):
        raise RuntimeError

    __hash__ = None


NAN = float("nan")
T = torch.tensor


class TestSame:
    @pytest.mark.parametrize(
        ("make", "answer"),
        [
            (lambda: T([1.0, NAN]), True),
            (lambda: T([True, False]), True),
            (lambda: T([[0.0, 1.0]]).to_sparse(), True),
            (lambda: np.array([1.0, NAN]), True),
            (lambda: np.array(["a"]), True),
            (lambda: {"a": [T(1), (T(2.0), "x")]}, True),
            (lambda: Record(T([1, 2])), True),
            (lambda: NAN, True),
            (lambda: None, True),
            (Opaque, None),
            (lambda: [T(1), Opaque()], None),
            (Hostile, None),
        ],
    )
    def test_equal_things_made_twice(self, make, answer):
        assert same(make(), make()) is answer

    @pytest.mark.parametrize(
        ("a", "b"),
        [
            (T([1.0]), T([1.0, 1.0])),
            (T([1.0]), T([1])),
            (T([1.0]), T([1.0 + 1e-6])),
            (T([NAN]), T([1.0])),
            (np.array([1]), np.array([2])),
            ({"a": 1}, {"b": 1}),
            ([1, 2], [1]),
            ([1], (1,)),
            (Record(T(1)), Record(T(1), 2)),
            ([Opaque(), 1], [Opaque(), 2]),
            (None, 0),
        ],
    )
    def test_different_things(self, a, b):
        assert same(a, b) is False

    def test_a_thing_is_the_same_as_itself(self):
        thing = Opaque()
        assert same(thing, thing) is True

    def test_close(self):
        assert close(1.0, 1.0 + 1e-8)
        assert close(float("inf"), float("inf"))
        assert not close(1.0, 1.00001)
        assert not close(NAN, NAN)


class TestTrees:
    def test_copied_is_cut_off(self):
        tensor = torch.ones(2, requires_grad=True) * 2
        lock = threading.Lock()
        tree = {"t": tensor, "list": [1, [2]], "lock": lock}
        copy = copied(tree)
        with torch.no_grad():
            tensor.zero_()
        assert copy["t"].tolist() == [2, 2]
        assert not copy["t"].requires_grad
        assert copy["lock"] is lock

    def test_tensors_of(self):
        a, b = T(1), T(2)
        found = tensors_of({"a": a, "x": [b, 3, None]})
        assert len(found) == 2
        assert found[0] is a
        assert found[1] is b

    def test_some(self):
        assert some(["a", "b", "c"]) == "a, b, c"
        assert some(list("abcde")) == "a, b, c and 2 more"


def draw():
    old = np.random.rand()  # noqa: NPY002 -- what users may draw from
    return torch.rand(1).item(), float(old), random.random()


class TestRandomState:
    def test_reseed_reaches_all_three(self):
        with kept_random_state():
            reseed(1)
            first = draw()
            reseed(1)
            assert draw() == first
            reseed(2)
            assert not set(draw()) & set(first)

    def test_kept(self):
        with kept_random_state():
            reseed(0)
            first = draw()
            reseed(0)
            with pytest.raises(KeyError), kept_random_state():
                reseed(9)
                raise KeyError
            assert draw() == first


class TestSnapshot:
    @pytest.fixture
    def model(self):
        return nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))

    def test_nothing(self, model):
        assert Snapshot(model).changed() == {}

    def test_each_kind(self, model):
        before = Snapshot(model)
        original = [t.clone() for t in (*model.parameters(), *model.buffers())]
        model(torch.randn(4, 2)).sum().backward()
        assert set(before.changed()) == {"buffers", "gradients"}
        with torch.no_grad():
            model[0].weight += 1
        model[1].eval()
        model[0].bias.requires_grad_(False)
        changed = before.changed()
        assert changed["parameters"] == ["0.weight"]
        assert changed["modes"] == ["1"]
        assert changed["flags"] == ["0.bias"]
        before.restore()
        assert before.changed() == {}
        now = (*model.parameters(), *model.buffers())
        assert all(torch.equal(a, b) for a, b in zip(original, now, strict=True))

    def test_trainable(self, model):
        model[0].weight.requires_grad_(False)
        assert list(trainable(model)) == ["0.bias", "1.weight", "1.bias"]


class TestPlaces:
    TEXT = (
        "import torch\n"
        "from anyorder.problems import Problem\n"
        "class Mine(Problem):\n"
        "    def build(self, seed):\n"
        "        return torch.nn.Linear(2, 1)\n"
        "    def batch(self, seed, step):\n"
        "        return torch.ones(1, 3)\n"
        "    def loss(self, model, batch):\n"
        "        return model(batch).sum()\n"
        "    @torch.no_grad()\n"
        "    def evaluate(self, model):\n"
        "        return {}\n"
    )

    def test_place_is_in_the_users_file(self, write):
        path = write(self.TEXT)
        problem = load(path)
        with pytest.raises(RuntimeError) as caught:
            problem.loss(problem.build(0), problem.batch(0, 0))
        assert place(caught.value, problem) == f"{path}:9"
        assert source_line(f"{path}:9") == "return model(batch).sum()"

    def test_definition_looks_through_decorators(self, write):
        path = write(self.TEXT)
        problem = load(path)
        assert definition(problem, "loss") == f"{path}:8"
        assert definition(problem, "evaluate") == f"{path}:10"
        assert definition(problem, "test") is None
        assert definition(problem, "goal") is None

    def test_watched_backward(self, write):
        path = write(
            self.TEXT.replace(
                "        return model(batch).sum()\n",
                "        loss = model(batch[:, :2]).sum()\n"
                "        loss.backward()\n"
                "        torch.autograd.backward(model(batch[:, :2]).sum())\n"
                "        return loss\n",
            )
        )
        problem = load(path)
        model = problem.build(0)
        with watched_backward(problem) as places:
            problem.loss(model, problem.batch(0, 0))
        assert places == [f"{path}:10", f"{path}:11"]
        assert model.weight.grad.tolist() == [[2, 2]]
        problem.loss(model, problem.batch(0, 0))
        assert len(places) == 2


class TestBench:
    def test_attempt_keeps_exceptions(self, good):
        bench = Bench(good(), 0)

        def trial(bench):
            raise KeyError("x")

        def leave(bench):
            raise SystemExit(2)

        def interrupt(bench):
            raise KeyboardInterrupt

        bench.attempt("loss", trial)
        bench.attempt("build", leave)
        assert [f.found for f in bench.findings] == ["raised KeyError: 'x'", "raised SystemExit: 2"]
        assert {f.level for f in bench.findings} == {"error"}
        assert "test__acceptance.py" in bench.findings[0].where
        with pytest.raises(KeyboardInterrupt):
            bench.attempt("loss", interrupt)

    def test_late_import_is_explained(self, good):
        bench = Bench(good(), 0)
        bench.attempt("build", lambda bench: __import__("nothing_of_this_name"))
        assert "at the top of the file" in bench.findings[0].instead

    def test_add_says_where(self, good):
        bench = Bench(good(), 0)
        bench.add("info", "loss", "found", "instead")
        bench.add("info", "target", "found")
        assert "conftest.py:" in bench.findings[0].where
        assert bench.findings[1].where is None

    def test_time_is_the_median(self, good, monkeypatch):
        ticks = iter([0.0, 5.0, 10.0, 11.0, 20.0, 22.0])
        monkeypatch.setattr("time.perf_counter", lambda: next(ticks))
        bench = Bench(good(), 0)
        assert bench.time("loss", lambda: "result") == "result"
        assert bench.seconds == {"loss": 2.0}
