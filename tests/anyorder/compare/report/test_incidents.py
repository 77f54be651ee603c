from __future__ import annotations

from dataclasses import replace

import example_results as example

from anyorder.compare.report.incidents import Incident, incidents, summary


def test_equal_incidents_are_merged_and_losses_come_first() -> None:
    runs = [example.run(seed, [1.0, 0.5], warnings=["a: b", "c: d"][: 2 - seed]) for seed in (0, 1)]
    stopped = example.lost(example.run(2, [1.0]), "failed", error="too slow")
    stopped.stop_reason = "timeout"
    lost = example.lost(example.run(3, [1.0]), error="the loss is nan")
    large = example.lost(example.run(4, [1.0]), "failed", error="9 GiB exceeds 8 GiB")
    large.stop_reason = "memory"
    found = incidents(example.method("m", [*runs, large, stopped, lost]))
    assert found == [
        Incident("timed out", "too slow", ["seed 2"]),
        Incident("over the memory limit", "9 GiB exceeds 8 GiB", ["seed 4"]),
        Incident("diverged", "the loss is nan", ["seed 3"]),
        Incident("warning", "a: b", ["seed 0", "seed 1"]),
        Incident("warning", "c: d", ["seed 0"]),
    ]
    assert summary(found) == (
        "1 run timed out, 1 run over the memory limit, 1 run diverged, 2 warnings"
    )


def test_a_method_without_runs_failed() -> None:
    found = incidents(example.method("m", [], failed="ImportError: no m"))
    assert found == [Incident("failed", "ImportError: no m", [])]
    assert (summary(found), summary([])) == ("failed", "")


def test_runs_of_the_default_are_named_once() -> None:
    one = example.run(0, [1.0], warnings=["w"])
    other = example.run(0, [0.9], warnings=["w"])
    method = example.method("m", [one], default_runs=[replace(one), other])
    assert incidents(method)[0].runs == ["seed 0", "default seed 0"]


def test_many_runs_are_counted() -> None:
    each = Incident("warning", "w", [f"seed {i}" for i in range(5)])
    assert each.where == "seed 0, seed 1, seed 2 and 2 more runs"
    assert Incident("warning", "w", ["seed 0", "seed 1"]).where == "seed 0 and seed 1"


def test_runs_of_several_tunings_are_named_by_both() -> None:
    runs = [example.run(0, [1.0], warnings=["w"]), example.run(10_000, [1.0], warnings=["w"])]
    method = example.method("m", runs, tunings=[example.tuned(), example.tuned(index=1)])
    assert incidents(method)[0].runs == ["tuning 0 seed 0", "tuning 1 seed 10000"]
