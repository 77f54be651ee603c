"""A person's session: which question is open, what was answered, where it is stored.

The answers are the truth: the method is deterministic, so its state follows from them. After each
answer the whole session is written to one file, atomically, and a restart replays it.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import threading
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import torch
from torch import Tensor

from anyorder.errors import AnyOrderError
from anyorder.files import lock, write_whole
from anyorder.judging.media import Media
from anyorder.judging.task import Task
from anyorder.methods.rank_sgd import RankSGD
from anyorder.oracle.closures import Ranked, checked_order

FORMAT = 1
#: Options of a session and their defaults: few candidates at a time, and scales that adapt.
DEFAULTS: dict[str, Any] = {
    "questions": 20,
    "points": 4,
    "top": 0,
    "line_search": 2,
    "lr": 0.2,
    "mu": 0.1,
    "adapt": True,
    "seed": 0,
}


class SessionError(AnyOrderError, RuntimeError):
    """The folder of a session cannot be used or written."""


class StaleError(AnyOrderError, RuntimeError):
    """An answer to a question that is not the open one."""


@dataclass(frozen=True)
class Question:
    """The open question.

    Args:
        token: names the question; it differs for every history of answers.
        number: counted from 1.
        part: ``order``: bring the candidates into order; ``choose``: choose the best.
        need: number of candidates that have to be placed at least.
        places: for each place on the page the candidate's position in the method's list. They are
            mixed, so that nobody can tell which is the present point.
    """

    token: str
    number: int
    part: Literal["order", "choose"]
    need: int
    places: tuple[int, ...]


class Session:
    """Candidates for a person, and the answers.

    Safe for threads. One process at a time may use a folder.

    Args:
        folder: where everything is stored; created if it is not there.
        task: what is ranked.
        options: options of :data:`DEFAULTS` that differ from them, or from those of the stored
            session, which cannot change except for ``questions``.

    Raises:
        SessionError: the folder is in use, damaged, cannot be written, or holds another session.
        HyperError: an option is outside its range.
    """

    def __init__(self, folder: Path, task: Task, options: Mapping[str, Any]) -> None:
        self.folder, self.task = folder, task
        self._lock = threading.RLock()
        self._start = task.tensors()
        self._media: tuple[str, dict[int, Media]] = ("", {})
        with _told(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._held = _hold(folder)
        try:
            stored = self._read()
            self.id: str = stored.get("id") or secrets.token_hex(8)
            self.options = _merged(options, stored.get("options"), folder)
            self.answers: list[list[list[int]]] = stored.get("answers", [])
            self._optimizer = self._replayed(self.answers)
            if "end" in stored and stored["end"] != _digest(self._optimizer.named_params()):
                raise SessionError(
                    f"{self._file} was written by another version of AnyOrder, whose points "
                    "differ; finish it there, or write --session with another folder"
                )
            self._write(self.answers)
        except BaseException:
            self.close()
            raise

    @property
    def _file(self) -> Path:
        return self.folder / "session.json"

    def close(self) -> None:
        """Let other processes use the folder."""
        self._held.close()

    # Questions -----------------------------------------------------------------------------

    @property
    def question(self) -> Question:
        """The open question; there is always one, also after the last that was planned."""
        with self._lock:
            history = json.dumps([self.id, self.answers])
            token = hashlib.sha256(history.encode()).hexdigest()[:16]
            count = len(self._optimizer.ask())
            choosing = self._optimizer.extra_state()["best"] is not None

            def mixed(place: int) -> str:
                return hashlib.sha256(f"{token}/{place}".encode()).hexdigest()

            return Question(
                token,
                len(self.answers) + 1,
                "choose" if choosing else "order",
                1 if choosing else self.options["top"] or 1,
                tuple(sorted(range(count), key=mixed)),
            )

    def candidates(self) -> tuple[Question, list[Media]]:
        """The open question, and the candidates in the order of the page.

        Raises:
            TaskError: one cannot be rendered.
        """
        with self._lock:
            question = self.question
            if self._media[0] != question.token:
                self._media = question.token, {}
            known = self._media[1]
            missing = [place for place in question.places if place not in known]
            points = self._optimizer.candidates() if missing else []
            for place in missing:
                known[place] = self.task.shown(points[place])
            return question, [known[place] for place in question.places]

    def best(self) -> Media:
        """The present point, the best by all answers."""
        with self._lock:
            return self.task.shown({n: p.detach() for n, p in self._point().items()})

    # Answers -------------------------------------------------------------------------------

    def answer(self, token: str, order: Ranked) -> None:
        """Take an answer and store it.

        Args:
            token: of the question that is answered.
            order: places on the page, best first; those that tie in a list of their own.

        Raises:
            StaleError: the question is not the open one; nothing was changed.
            RankingError: that is no order; nothing was changed.
            SessionError: it cannot be stored; nothing was changed.
        """
        with self._lock:
            question = self._open(token)
            places = question.places
            groups = checked_order(order, len(places)).groups
            answer = [sorted(places[place] for place in group) for group in groups]
            self._optimizer.tell(answer)
            self._store([*self.answers, answer])

    def undo(self, token: str) -> None:
        """Take back the last answer and open its question again.

        Raises:
            StaleError: ``token`` is not of the open question, or there is no answer.
            SessionError: it cannot be stored; nothing was changed.
        """
        with self._lock:
            self._open(token)
            if not self.answers:
                raise StaleError("There is no answer to undo.")
            self._optimizer = self._replayed(self.answers[:-1])
            self._store(self.answers[:-1])

    def more(self, questions: int) -> None:
        """Plan more questions."""
        with self._lock:
            planned = max(len(self.answers), self.options["questions"]) + questions
            self.options = {**self.options, "questions": planned}
            self._store(self.answers)

    def _open(self, token: str) -> Question:
        question = self.question
        if token != question.token:
            raise StaleError(
                "That question is not open any more: it was answered or undone before, perhaps in "
                f"another tab. Nothing was changed. Question {question.number} is open now."
            )
        return question

    # Storage -------------------------------------------------------------------------------

    def _point(self) -> dict[str, Tensor]:
        return self._optimizer.named_params()

    def _replayed(self, answers: Sequence[Ranked]) -> RankSGD:
        """The method after ``answers``."""
        options = {name: value for name, value in self.options.items() if name != "questions"}
        params = [(name, torch.nn.Parameter(t.clone())) for name, t in self._start.items()]
        optimizer = RankSGD(params, engine="eager", **options)
        for answer in answers:
            optimizer.tell(answer)
        return optimizer

    def _store(self, answers: list[list[list[int]]]) -> None:
        """Write the session; if that fails, everything is as before."""
        try:
            self._write(answers)
        except SessionError:
            self._optimizer = self._replayed(self.answers)
            raise
        self.answers = answers

    def _write(self, answers: list[list[list[int]]]) -> None:
        point = {name: p.tolist() for name, p in self._point().items()}
        best = {"parameters": point, "answers": len(answers), "steps": self._optimizer.steps}
        session = {
            "format": FORMAT,
            "id": self.id,
            "task": self.task.name,
            "start": _digest(self._start),
            "options": self.options,
            "answers": answers,
            "end": _digest(self._point()),
        }
        with _told(self.folder):
            write_whole(self.folder / "best.json", json.dumps(best, indent=1) + "\n")
            write_whole(self._file, json.dumps(session) + "\n")

    def _read(self) -> dict[str, Any]:
        """What is stored; empty if there is nothing."""
        if not self._file.exists():
            return {}
        try:
            stored: Any = json.loads(self._file.read_text(encoding="utf-8"))
            form, start = stored["format"], stored["start"]
            _ = stored["id"], stored["options"], stored["answers"], stored["end"]
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise SessionError(
                f"{self._file} cannot be read ({type(error).__name__}: {error}); restore it, or "
                "write --session with another folder"
            ) from error
        if form != FORMAT:
            raise SessionError(f"{self._file}: expected format {FORMAT}, got {form!r}")
        if start != _digest(self._start):
            raise SessionError(
                f"{self._file} belongs to other parameters: the task {self.task.name} has changed, "
                "or is another one; write --session with another folder"
            )
        return stored


def _merged(
    options: Mapping[str, Any], stored: Mapping[str, Any] | None, folder: Path
) -> dict[str, Any]:
    """The options of a session; those of a stored one stay."""
    if stored is not None:
        for name, value in options.items():
            if name != "questions" and value != stored.get(name):
                raise SessionError(
                    f"the session in {folder} has {name} = {stored.get(name)}, got {value}; leave "
                    "the option out to go on, or write --session with another folder"
                )
    return {**DEFAULTS, **(stored or {}), **options}


def _digest(point: Mapping[str, Tensor]) -> str:
    """Names, shapes and bits of a point."""
    found = hashlib.sha256()
    for name, value in point.items():
        found.update(f"{name}{tuple(value.shape)}".encode())
        found.update(value.detach().double().numpy().tobytes())
    return found.hexdigest()


@contextmanager
def _told(folder: Path) -> Generator[None]:
    """Say where it failed, and that nothing was changed."""
    try:
        yield
    except OSError as error:
        raise SessionError(
            f"{folder} cannot be written ({error.strerror or error}); nothing was changed. Make "
            "room or permit it, then try again"
        ) from error


def _hold(folder: Path) -> IO[str]:
    """Keep the folder from other processes until the file is closed or the process ends."""
    file = (folder / "lock").open("a", encoding="utf-8")
    if not lock(file):
        file.close()
        raise SessionError(
            f"another anyorder rank uses {folder}; end it first, or open the page that it serves"
        )
    return file
