from __future__ import annotations

import re

import example_results as example
import pytest
from example_results import searched, trial
from judged_results import method, results, run, tuned
from numpy.random import default_rng

from anyorder.compare.report.headline import headline
from anyorder.compare.store.schema import MethodRecord, Results


def _method(name: str, level: float, tunings: int = 1, seeds: int = 10) -> MethodRecord:
    """A method whose losses lie close to a level."""
    noise = 0.01 * default_rng(len(name)).normal(size=(tunings, seeds))
    return tuned(name, level + noise)


def _said(found: Results) -> str:
    return "\n".join(headline(found))


def test_several_tunings_speak_of_methods() -> None:
    said = headline(
        results(_method("adamw", 1.0, 6, 5), _method("lion", 2.0, 6, 5), _method("sgd", 3.0, 6, 5))
    )
    assert re.fullmatch(
        r"adamw is first: validation score -\d[.\d]* \[-[.\d]+, -[.\d]+\], 95 % interval "
        r"\(6 tunings x 5 seeds\)\.",
        said[0],
    )
    assert said[1] == (
        "adamw is apart from all others (6 tunings x 5 seeds) (test rows not resampled)."
    )
    assert "onfiguration" not in "\n".join(said)


def test_one_tuning_speaks_of_configurations() -> None:
    a, b = _method("a", 1.0), _method("bb", 2.0)
    assert "Configurations, none of them tuned. To compare methods, use --tune 4" in _said(
        results(a, b)
    )
    a.tunings[0].trials = [trial(0, 0.5), trial(1, 0.5)]
    said = _said(results(a, b))
    assert "This configuration of a is apart from bb (10 seeds)" in said
    assert "Configurations, one tuning each" in said
    assert "To compare methods, add --extend --tunings 6 or more." in said


def test_too_few_seeds_say_how_many_it_takes() -> None:
    said = headline(results(_method("a", 1.0, seeds=3), _method("bb", 2.0, seeds=3)))
    assert said[1] == (
        "3 seeds cannot separate 1 pair of configurations, however far apart: 7 are needed."
    )
    assert "95 %" not in said[0]


def test_what_is_not_separable_says_what_it_takes() -> None:
    wave = [(-1) ** i for i in range(12)]
    a, d = method("a", [1.0] * 12), method("d", [9.0] * 12)
    b, c = (method(name, [at + spread * x for x in wave]) for name, at, spread in
            (("b", 1.05, 0.15), ("c", 1.1, 0.4)))  # fmt: skip
    said = headline(results(a, b, c, d))[1]
    assert re.fullmatch(
        r"This configuration of a is better than d; not separable from b and c "
        r"\(needs about [\d,]+ to [\d,]+ more seeds\)\.",
        said,
    )


def test_a_lead_that_may_be_due_to_the_rows_is_no_lead() -> None:
    a, b = _method("a", 1.0, 6, 3), _method("bb", 1.1, 6, 3)
    rows = default_rng(2).normal(size=200)
    for each, sign in ((a, 1), (b, -1)):
        for one in each.runs:
            score = one.final.metric or 0.0
            one.test, one.resampled = {"score": score}, [score + sign * x for x in rows.tolist()]
    said = _said(results(a, b))
    assert "apart" not in said
    assert "Its lead over bb may be due to the choice of test rows" in said
    for each in (a, b):
        for one in each.runs:
            one.resampled = [x * 1e-3 + (one.test or {})["score"] for x in rows.tolist()]
    assert "a is apart from bb (6 tunings x 3 seeds).\n" in _said(results(a, b))


def test_the_twin_is_the_resolution() -> None:
    a, twin = _method("a", 1.0), method("a (A/A)", [1.0 + 0.01 * i for i in range(10)])
    twin.twin_of = "a"
    for one in twin.runs:
        one.seed += 500_000
    said = headline(results(a, _method("bb", 2.0), twin))
    (found,) = [each for each in said if "A/A" in each]
    assert re.match(r"(Resolution|Caution): a against itself \(A/A\) differs by 0\.0\d+", found)
    for one in twin.runs:
        one.final.metric = -5.0
    said = headline(results(a, _method("bb", 2.0), twin))
    assert any(each.startswith("Caution: a against itself (A/A) differs by 4") for each in said)
    assert said[0].startswith("a is first")


def test_what_is_not_tuned_out_is_named_with_the_reason() -> None:
    a, b = _method("a", 1.0), _method("bb", 2.0)
    a.tunings[0].trials = [trial(i, float(i), lr=0.01) for i in range(4)]
    b.tunings[0].trials, b.tunings[0].space = [trial(0, 0.5, lr=1.0)], [searched()]
    assert (
        "Not tuned out: a (more trials still help); bb (best lr at an end of the range)."
        in headline(results(a, b))
    )


def test_cost_looks_and_lost_runs_have_a_sentence_each() -> None:
    fast, slow = method("fast", [1.0] * 10), method("slow", [2.0] * 10)
    fast.runs = [run(i, 1.0, metric=1.0 + 0.1 * i) for i in range(10)]
    slow.runs = [run(i, 2.0, metric=0.5 + 0.01 * i) for i in range(10)]
    said = headline(results(fast, slow, target=0.5))
    assert any(
        re.match(
            r"fast reaches score 0\.5 \(set by the problem\) at the lowest expected cost, "
            r"[\d.]+ s; it is faster than slow\.",
            each,
        )
        for each in said
    )
    fast.runs[0] = example.lost(fast.runs[0])
    said = headline(results(fast, slow, looks=3))
    assert "1 of 20 runs diverged or failed and count as worst." in said
    assert any("was extended 2 times: verdicts are held to an error of 0.0034" in x for x in said)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("all failed", "No method has a result; the reasons are listed below."),
        ("no methods", "No method took part."),
        ("one seed", "a is first: validation score 0.9 (1 seed)."),
    ],
)
def test_odd_results(name: str, said: str) -> None:
    assert headline(example.hostile()[name])[0] == said


@pytest.mark.parametrize("name", list(example.hostile()))
def test_no_headline_claims_too_much_for_a_few_seeds(name: str) -> None:
    said = "\n".join(headline(example.hostile()[name]))
    assert said
    assert "apart from all" not in said
    assert "nan" not in said
