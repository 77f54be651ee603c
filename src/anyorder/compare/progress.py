"""Progress output: bars on a terminal, plain lines elsewhere, or nothing."""

from __future__ import annotations

import time
from collections.abc import Iterable

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from anyorder.compare.plan.items import Item
from anyorder.compare.run.records import Point, RunRecord


class Silent:
    """Prints nothing; the base class of the others."""

    def say(self, lines: Iterable[str]) -> None:
        """Report a message."""

    def begin(self, done: int, total: int, jobs: int, estimate: float) -> None:
        """The runs begin: ``done`` are finished already, all take about ``estimate`` seconds."""

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
        self.done, self.total, self.here = 0, 0, 0
        self.jobs, self.estimate, self.began = 1, 0.0, 0.0
        self._since: dict[Item, float] = {}

    def say(self, lines: Iterable[str]) -> None:
        """Print the lines."""
        for line in lines:
            self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def begin(self, done: int, total: int, jobs: int, estimate: float) -> None:
        """Print the number of runs and the estimated time."""
        self.done, self.total, self.jobs, self.estimate = done, total, jobs, estimate
        self.began = time.monotonic()
        already = f", {done} already finished" if done else ""
        self.say([f"{total} runs{already}; about {duration(self.left())}"])

    def started(self, item: Item) -> None:
        """Record the start time."""
        self._since[item] = time.monotonic()

    def finished(self, item: Item, record: RunRecord | None) -> None:
        """Print the result of the run."""
        self.done, self.here = self.done + 1, self.here + 1
        took = time.monotonic() - self._since.pop(item, time.monotonic())
        text = f"[{self.done}/{self.total}] {item}: {ending(record)}  ({took:.1f} s)"
        left = f", {duration(self.left())} left" if self.done < self.total else ""
        self.say([text + left])

    def waiting(self, done: int, others: int) -> None:
        """Update the number of finished runs."""
        self.done = max(self.done, done)

    def left(self) -> float:
        """Remaining seconds, estimated from the finished runs."""
        rest = self.total - self.done
        if self.here == 0:
            return self.estimate * rest / max(1, self.total)
        return (time.monotonic() - self.began) / self.here * rest


class Live(Plain):
    """One bar for all runs and one per active run, on a terminal."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self.bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=console,
            transient=True,
        )
        self._whole: TaskID | None = None
        self._rows: dict[Item, TaskID] = {}

    def begin(self, done: int, total: int, jobs: int, estimate: float) -> None:
        """Show the bars."""
        super().begin(done, total, jobs, estimate)
        self.bars.start()
        self._whole = self.bars.add_task("all runs", total=total, completed=done, note="")
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
