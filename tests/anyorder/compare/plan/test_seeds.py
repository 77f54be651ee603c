from __future__ import annotations

from itertools import product

from anyorder.compare.plan.seeds import (
    MAX_TUNINGS,
    TWIN,
    TWIN_SHIFT,
    report_seed,
    stream,
    trial_seed,
)

NAMES = ("adamw", "adamw" + TWIN)


def test_all_seeds_of_a_method_and_its_twin_differ() -> None:
    tunings = range(MAX_TUNINGS)
    trials = [trial_seed(name, tuning) for name, tuning in product(NAMES, tunings)]
    reported = [report_seed(*each) for each in product(NAMES, tunings, (0, 1, 999))]
    seeds = trials + reported
    assert len(set(seeds)) == len(seeds)


def test_methods_share_seeds_and_a_twin_does_not() -> None:
    assert report_seed("adamw", 2, 3) == report_seed("lion", 2, 3) == 20_003
    assert trial_seed("adamw", 2) == trial_seed("lion", 2) == 1002
    assert report_seed(NAMES[1], 2, 3) == TWIN_SHIFT + 20_003
    assert trial_seed(NAMES[1], 2) == TWIN_SHIFT + 1002


def test_the_trials_of_each_tuning_are_drawn_from_a_stream_of_its_own() -> None:
    streams = [stream(*each) for each in product(NAMES, range(MAX_TUNINGS))]
    assert len(set(streams)) == len(streams)
