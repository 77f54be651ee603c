"""Progress output: bars on a terminal, plain lines elsewhere, or nothing."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Iterable, Mapping

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Column

from anyorder.compare.plan.items import Item
from anyorder.compare.run.estimate import Forecast
from anyorder.compare.run.records import Point, RunRecord


class Silent:
    """Prints nothing; the base class of the others."""

    def say(self, lines: Iterable[str]) -> None:
        """Report a message."""

    def begin(self, total: int, expected: Mapping[Item, float], jobs: int) -> None:
        """The runs begin: ``total`` runs, and the expected seconds of each unfinished one."""

    def started(self, item: Item) -> None:
        """A run started."""

    def point(self, item: Item, point: Point) -> None:
        """A run was evaluated."""

    def finished(self, item: Item, record: RunRecord | None) -> None:
        """A run ended in this process."""

    def waiting(self, done: int, others: int) -> None:
        """Report the number of finished runs, and of runs in other processes."""

    def end(self) -> None:
        """The runs ended or were interrupted."""


class Plain(Silent):
    """One line per run, for files and pipes.

    Args:
        console: the output.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.done, self.total = 0, 0
        self.forecast = Forecast({})
        self._since: dict[Item, float] = {}

    def say(self, lines: Iterable[str]) -> None:
        """Print the lines, wrapped at spaces to the width of the terminal, or to 80 columns."""
        for line in lines:
            for part in _cut(line, self.console.width) or [""]:
                self.console.print(part, markup=False, highlight=False, soft_wrap=True)

    def begin(self, total: int, expected: Mapping[Item, float], jobs: int) -> None:
        """Print the number of runs and the estimated time."""
        self.total, self.done = total, total - len(expected)
        self.forecast = Forecast(expected, jobs)
        already = f", {self.done} already finished" if self.done else ""
        self.say([f"{total} runs{already}; about {duration(self.left())}"])

    def started(self, item: Item) -> None:
        """Record the start time."""
        self._since[item] = time.monotonic()

    def finished(self, item: Item, record: RunRecord | None) -> None:
        """Print the result of the run."""
        self.done += 1
        took = time.monotonic() - self._since.pop(item, time.monotonic())
        self.forecast.finished(item, None if record is None else took)
        text = f"[{self.done}/{self.total}] {item}: {ending(record)}  ({took:.1f} s)"
        left = f", {duration(self.left())} left" if self.done < self.total else ""
        self.say([text + left])

    def waiting(self, done: int, others: int) -> None:
        """Update the number of finished runs."""
        self.done = max(self.done, done)

    def left(self) -> float:
        """Remaining seconds, estimated from warm steps and finished runs."""
        return self.forecast.left(self.total - self.done)


class Live(Plain):
    """One bar for all runs and one per active run, on a terminal."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self.bars = Progress(
            TextColumn("{task.description}", markup=False, table_column=_column(3)),
            BarColumn(table_column=_column(1)),
            TextColumn("{task.fields[note]}", markup=False, table_column=_column(4)),
            console=console,
            transient=True,
            expand=True,
        )
        self._whole: TaskID | None = None
        self._rows: dict[Item, TaskID] = {}

    def begin(self, total: int, expected: Mapping[Item, float], jobs: int) -> None:
        """Show the bars."""
        super().begin(total, expected, jobs)
        self.bars.start()
        self._whole = self.bars.add_task("all runs", total=total, completed=self.done, note="")
        self._refresh()

    def started(self, item: Item) -> None:
        """Add a bar."""
        super().started(item)
        self._rows[item] = self.bars.add_task(str(item), total=1.0, note="starting")

    def point(self, item: Item, point: Point) -> None:
        """Update the bar."""
        loss = point.val_loss
        note = "loss not finite" if loss is None else f"loss {loss:.4g}"
        if item in self._rows:
            self.bars.update(self._rows[item], completed=point.fraction, note=note)

    def finished(self, item: Item, record: RunRecord | None) -> None:
        """Remove the bar and print the result."""
        if item in self._rows:
            self.bars.remove_task(self._rows.pop(item))
        super().finished(item, record)
        self._refresh()

    def waiting(self, done: int, others: int) -> None:
        """Show the progress of other processes."""
        super().waiting(done, others)
        self._refresh(others)

    def end(self) -> None:
        """Remove the bars."""
        self.bars.stop()

    def _refresh(self, others: int = 0) -> None:
        if self._whole is None:
            return
        note = f"{self.done}/{self.total}, {duration(self.left())} left"
        note += f", {others} elsewhere" if others else ""
        self.bars.update(self._whole, completed=self.done, note=note)


def progress_for(console: Console) -> Silent:
    """Bars on a terminal, lines elsewhere."""
    return Live(console) if console.is_terminal else Plain(console)


def _cut(line: str, width: int) -> list[str]:
    """Wrap a line at spaces, without cutting words; continued lines are indented."""
    indent = " " * (len(line) - len(line.lstrip()) + 4)
    return textwrap.wrap(
        line,
        max(width, 20),
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
        replace_whitespace=False,
        drop_whitespace=True,
    )


def _column(ratio: int) -> Column:
    """A table column that is truncated if too long, so that a bar stays on one line."""
    return Column(ratio=ratio, no_wrap=True, overflow="ellipsis")


def ending(record: RunRecord | None) -> str:
    """The result of a run, in one line."""
    if record is None:
        return "not needed, the default was chosen"
    if record.status != "done":
        return f"{record.status}: {record.error}"
    loss, metric = record.final.loss, record.final.metric
    return f"loss {_short(loss)}" + ("" if loss == metric else f", metric {_short(metric)}")


def _short(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.4g}"


def duration(seconds: float) -> str:
    """A duration as text, such as ``1 min 20 s``."""
    seconds = max(0.0, seconds)
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
