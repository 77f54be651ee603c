"""Metrics in TensorBoard, MLflow, Trackio and Weights & Biases."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import anyorder
from anyorder.integrations import metrics


def needs(library: str) -> pytest.MarkDecorator:
    missing = importlib.util.find_spec(library) is None
    return pytest.mark.skipif(missing, reason=f"needs {library}")


def test_metrics_are_numbers_by_name() -> None:
    x, y = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    optimizer = anyorder.MeZO([{"params": [x]}, {"params": [y], "lr": 0.5}], lr=0.1)
    optimizer.step(lambda: (x**2).sum() + (y**2).sum())
    found = metrics(optimizer)
    assert {k: found[k] for k in ("steps", "lr", "lr/1")} == {"steps": 1, "lr": 0.1, "lr/1": 0.5}
    assert found["calls/values"] == optimizer.calls.values == 2
    assert all(type(value) is float for value in found.values())
    ledger = {k.removeprefix("calls/") for k in found if k.startswith("calls/")}
    assert ledger == set(optimizer.calls.to_dict())


@needs("tensorboard")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of protobuf, in tensorboard
def test_tensorboard(example: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    found = example("logging_metrics", "tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "runs")).Reload()
    products = [event.value for event in events.Scalars("calls/products")]
    assert products == [1, 2, 3, 4, 5]
    assert events.Scalars("loss")[-1].value == pytest.approx(found["loss"].item())


@needs("mlflow")
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of its many dependencies
def test_mlflow(example: Callable[..., dict[str, Any]]) -> None:
    found = example("logging_metrics", "mlflow")
    import mlflow

    client = mlflow.MlflowClient()
    (run,) = client.search_runs(["0"])
    history = client.get_metric_history(run.info.run_id, "calls/products")
    assert [m.value for m in history] == [1, 2, 3, 4, 5]
    assert run.data.metrics["loss"] == pytest.approx(found["loss"].item())


@needs("trackio")
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of its many dependencies
def test_trackio(
    example: Callable[..., dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    example("logging_metrics", "trackio")
    from trackio.sqlite_storage import SQLiteStorage

    rows = SQLiteStorage.get_logs("digits", "adahessian")
    assert [row["calls/products"] for row in rows if "loss" in row] == [1, 2, 3, 4, 5]


@needs("wandb")
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of its many dependencies
def test_wandb_offline(example: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    example("logging_metrics", "wandb")
    import wandb

    wandb.teardown()  # as at the end of a process: only now is the file whole
    (log,) = (tmp_path / "wandb").glob("offline-run-*/*.wandb")
    assert b"calls/products" in log.read_bytes()
