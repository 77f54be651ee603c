"""What is said while a comparison runs."""

from __future__ import annotations

import io

from example_results import lost, point, run
from rich.console import Console

from anyorder.compare.plan.items import Item
from anyorder.compare.progress import Live, Plain, Silent, duration, ending, progress_for
from anyorder.compare.run.records import Final

ITEM = Item.trial("sgd", 0, 0)
GOOD = run(0, [0.5], final=Final(0.5, 0.25))
BAD = lost(GOOD, "failed", error="KeyError at x.py:3: 'y'")


def console(terminal: bool) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=100, color_system=None)


def play(progress: Silent) -> None:
    progress.say(["[bold] is no markup here"])
    progress.begin(1, 4, 1, 90.0)
    progress.started(ITEM)
    progress.point(ITEM, point(fraction=0.5, val_loss=0.7))
    progress.point(ITEM, point(fraction=0.6))
    progress.finished(ITEM, GOOD)
    progress.waiting(3, 1)
    progress.finished(Item.report("sgd", 0, 2), BAD)
    progress.end()


def test_plain_lines() -> None:
    out = console(terminal=False)
    play(Plain(out))
    lines = out.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert lines[0] == "[bold] is no markup here"
    assert lines[1] == "4 runs, 1 already finished; about 1 min 8 s"
    assert lines[2].startswith("[2/4] tune 0  sgd: loss 0.5, metric 0.25  (")
    assert lines[2].endswith(" left")
    assert lines[3].startswith("[4/4] report 2  sgd: failed: KeyError at x.py:3: 'y'  (")
    assert len(lines) == 4


def test_bars_on_a_terminal() -> None:
    out = console(terminal=True)
    play(Live(out))
    text = out.file.getvalue()  # type: ignore[attr-defined]
    assert "[2/4] tune 0  sgd: loss 0.5" in text
    assert "all runs" in text


def test_silence() -> None:
    play(Silent())


def test_the_right_one_is_chosen() -> None:
    assert type(progress_for(console(terminal=True))) is Live
    assert type(progress_for(console(terminal=False))) is Plain


def test_durations_and_endings() -> None:
    assert [duration(s) for s in (-1, 3.4, 65, 3725)] == ["0 s", "3 s", "1 min 5 s", "1 h 2 min"]
    assert ending(None) == "not needed, the default was chosen"
    assert ending(run(0, [0.5])) == "loss 0.5"
    assert ending(run(0, [0.5], final=Final(0.5, None))) == "loss 0.5, metric not finite"
