"""What is said while a comparison runs."""

from __future__ import annotations

import io

from example_results import lost, point, run
from rich.console import Console

from anyorder.compare.plan.items import Item
from anyorder.compare.progress import Live, Plain, Silent, duration, ending, progress_for
from anyorder.compare.run.records import Final

ITEM = Item.trial("sgd", 0, 0)
LAST = Item.report("sgd", 0, 2)
GOOD = run(0, [0.5], final=Final(0.5, 0.25))
BAD = lost(GOOD, "failed", error="KeyError at x.py:3: 'y'")


def console(terminal: bool, width: int = 100) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=width, color_system=None)


def play(progress: Silent) -> None:
    progress.say(["[bold] is no markup here"])
    progress.begin(4, {ITEM: 30.0, LAST: 20.0, Item.report("sgd", 0, 3): 20.0}, 1)
    progress.started(ITEM)
    progress.point(ITEM, point(fraction=0.5, val_loss=0.7))
    progress.point(ITEM, point(fraction=0.6))
    progress.finished(ITEM, GOOD)
    progress.waiting(3, 1)
    progress.finished(LAST, BAD)
    progress.end()


def test_plain_lines() -> None:
    out = console(terminal=False)
    play(Plain(out))
    lines = out.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert lines[0] == "[bold] is no markup here"
    assert lines[1] == "4 runs, 1 already finished; about 1 min 10 s"
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


def test_lines_of_logs_have_80_columns_and_whole_words() -> None:
    out = console(terminal=False, width=80)
    words = (
        "adamw: anyorder.methods.adamw.AdamW 0.9; lr=0.001, betas=(0.9, 0.999), eps=1e-08; " * 3
        + "end"
    )
    path = "/a/path/that/is/longer/than/a/line/" + "x" * 80
    Plain(out).say([words, f"  cannot write {path}", "", "short"])
    lines = out.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert " ".join(" ".join(lines).split()) == f"{words} cannot write {path} short"
    assert all(len(line) <= 80 or path in line for line in lines)
    assert lines[1].startswith("    ") and lines[-2:] == ["", "short"]


def test_bars_fit_into_80_columns() -> None:
    out = console(terminal=True, width=80)
    progress = Live(out)
    item = Item.trial("a_package.with_a_module.of_a_long_name:AndAClassOfALongNameToo", 0, 3)
    progress.begin(12, {item: 4000.0}, 1)
    progress.started(item)
    progress.point(item, point(fraction=0.5, val_loss=0.7))
    progress.waiting(11, 1)
    progress.end()
    shown = console(terminal=False, width=80)
    shown.print(progress.bars.get_renderable())
    lines = shown.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert len(lines) == 2
    assert all(len(line) <= 80 for line in lines)
    assert "11/12, 1 h 6 min left, 1 elsewhere" in lines[0]
    assert lines[1].startswith("tune 3  a_package") and "loss 0.7" in lines[1]


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
