"""Records: what a run leaves behind."""

from __future__ import annotations

from dataclasses import fields

from example_results import task

from anyorder.compare.run.records import Costs, RunRecord, failed_run
from anyorder.compare.store.schema import Outcome, read, text_of
from anyorder.oracle.ledger import COUNTS, Calls


def test_a_failure_is_a_valid_record() -> None:
    record = failed_run(task(), "the process died", crashed=True)
    outcome = Outcome({}, {}, record, "m")
    assert read(Outcome, text_of(outcome), "outcome") == outcome
    assert (record.status, record.stop_reason, record.seed) == ("failed", "crashed", 0)
    assert failed_run(task(), "no", "Trace").stop_reason == "error"


def test_every_count_of_the_ledger_is_kept() -> None:
    kept = {each.name for each in fields(Costs)}
    assert kept >= set(COUNTS)
    assert kept == {each.name for each in fields(Calls)} - {"seconds", "peak_bytes"}


def test_a_record_leaves_nothing_out() -> None:
    assert all(each.default is each.default_factory for each in fields(RunRecord))
