"""Who takes part: resolved by name, import path or file, with settings read and checked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from anyorder.compare.plan.entrants import EntrantError, resolve, resolve_all
from anyorder.compare.plan.space import SpaceError
from anyorder.hyper import HyperError, UnknownOptionError
from anyorder.methods import UnknownMethodError
from anyorder.methods.adamw import AdamW


def test_a_method_of_this_library() -> None:
    found = resolve("adamw")
    assert found.cls is AdamW
    assert found.ours
    assert found.path == "anyorder.methods.adamw.AdamW"
    assert found.version.startswith("anyorder ")
    assert found.settings()["betas"] == (0.9, 0.999)
    assert (found.order, found.needs) == (1, ["grad"])


def test_a_class_by_import_path() -> None:
    found = resolve("torch.optim:LBFGS")
    assert found.cls is torch.optim.LBFGS
    assert not found.ours
    assert found.version == f"torch {torch.__version__}"
    assert found.settings()["history_size"] == 100
    assert found.needs == ["grad"]


def test_a_class_in_a_file(method_file: Callable[[str], str]) -> None:
    spec = method_file("return closure()")
    found = resolve(spec)
    assert found.cls.__name__ == "Mine"
    assert found.version.startswith("file ")
    assert resolve(spec.removesuffix(":Mine")).cls is found.cls


def test_a_module_in_the_working_folder(
    method_file: Callable[[str, str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method_file("return closure()", "my_optimizers_here.py")
    monkeypatch.chdir(tmp_path)
    assert resolve("my_optimizers_here:Mine").version.startswith("file ")


def test_one_method_twice_under_two_names() -> None:
    first, second = resolve_all(["adamw", "fast=adamw"], ["fast.lr=0.1", "fast.betas=0.8,0.9"])
    assert first.cls is second.cls
    assert (first.settings()["lr"], second.settings()["lr"]) == (1e-3, 0.1)
    assert second.settings()["betas"] == (0.8, 0.9)
    assert [each.name for each in second.space] == ["weight_decay"]
    assert second.settings({"weight_decay": 0.5})["weight_decay"] == 0.5


def test_settings_of_foreign_classes_are_literals() -> None:
    (found,) = resolve_all(
        ["torch.optim:AdamW"],
        ["AdamW.betas=[0.8, 0.9]", "AdamW.amsgrad=true", "AdamW.foreach=None"],
    )
    assert found.fixed == {"betas": (0.8, 0.9), "amsgrad": True, "foreach": None}
    (lbfgs,) = resolve_all(["torch.optim:LBFGS"], ["LBFGS.line_search_fn=strong_wolfe"])
    assert lbfgs.fixed == {"line_search_fn": "strong_wolfe"}


def test_settings_survive_storage_as_lists() -> None:
    stored = resolve("adamw", "adamw", {"betas": [0.8, 0.9]})
    assert stored.settings()["betas"] == (0.8, 0.9)


@pytest.mark.parametrize(
    ("specs", "error", "says"),
    [
        (["adamv"], UnknownMethodError, "Did you mean 'adamw'"),
        (["torch.optim:Adm"], EntrantError, "Did you mean 'Adam'"),
        (["torch.optmi:Adam"], EntrantError, "cannot import 'torch.optmi'"),
        (["torch.optim:lr_scheduler"], EntrantError, "is a module, expected a subclass"),
        (["torch.nn:Linear"], EntrantError, "expected a subclass of torch.optim.Optimizer"),
        (["nowhere/file.py:Mine"], EntrantError, "does not exist"),
        (["adamw", "adamw"], EntrantError, "takes part twice.*again=adamw"),
        ([], EntrantError, "at least one method"),
    ],
)
def test_what_cannot_take_part(specs: list[str], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        resolve_all(specs)


@pytest.mark.parametrize(
    ("setting", "error", "says"),
    [
        ("adamw.lrr=1", UnknownOptionError, "Did you mean 'lr'"),
        ("adamw.lr=-1", HyperError, "lr: expected a value >= 0"),
        ("adamw.lr=fast", HyperError, "lr: expected a number"),
        ("adam.lr=1", EntrantError, "Did you mean 'adamw'"),
        ("adamw.lr", EntrantError, "expected METHOD.NAME=VALUE"),
        ("LBFGS.lrr=1", UnknownOptionError, "Did you mean 'lr'"),
    ],
)
def test_wrong_settings(setting: str, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        resolve_all(["adamw", "torch.optim:LBFGS"], [setting])


def test_a_file_that_fails_or_holds_several(tmp_path: Path) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text("import no_such_module_there\n")
    with pytest.raises(EntrantError, match="importing .* failed: ModuleNotFoundError"):
        resolve(f"{broken}:Mine")
    two = tmp_path / "two.py"
    two.write_text("import torch\nclass A(torch.optim.SGD): pass\nclass B(torch.optim.SGD): pass\n")
    with pytest.raises(EntrantError, match="needs a class name.*A, B"):
        resolve(str(two))


def test_a_class_that_cannot_be_used_does_not_stop_the_others(tmp_path: Path) -> None:
    specs = ["sgd", "torch.optim:Adm", "no_such_package:X", f"{tmp_path}/none.py:Mine"]
    sgd, *lost = resolve_all(specs, ["Adm.lr=1"], ["Mine.lr=log:1..2"])
    assert sgd.failed is None
    for each, says in zip(lost, ("Did you mean 'Adam'", "cannot import", "not exist"), strict=True):
        assert says in str(each.failed)
        assert (each.path, each.space, each.settings()) == (each.spec, (), {})
        assert each.describe().startswith(f"{each.name} cannot be used: ")
    with pytest.raises(EntrantError, match="Did you mean 'Adam'.*; cannot import"):
        resolve_all(specs[1:3])


def test_a_value_and_a_range_exclude_each_other() -> None:
    with pytest.raises(SpaceError, match=r"sgd\.lr has a fixed value and a range"):
        resolve_all(["sgd"], ["sgd.lr=1"], ["sgd.lr=log:1..2"])
    with pytest.raises(UnknownOptionError, match="Did you mean 'lr'"):
        resolve_all(["sgd"], [], ["sgd.lrr=log:1..2"])
    with pytest.raises(EntrantError, match=r"such as adamw\.lr=log:1e-5\.\.1e-1"):
        resolve_all(["sgd"], [], ["lr"])


@pytest.mark.parametrize("name", ["a%41 b", "a?b", "a#b", "a\nb"])
def test_paths_with_odd_characters(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    path = tmp_path / name / f"{name}.py"
    path.write_text("import torch\nclass Mine(torch.optim.SGD): pass\n")
    (found,) = resolve_all([f"odd={path}:Mine"])
    assert (found.name, found.failed, found.cls.__name__) == ("odd", None, "Mine")
    assert resolve(str(path)).cls is found.cls


def test_an_argument_without_a_default_must_be_set(tmp_path: Path) -> None:
    path = tmp_path / "needy.py"
    path.write_text(
        "import torch\nclass Needy(torch.optim.SGD):\n"
        "    def __init__(self, params, total): super().__init__(params, lr=1 / total)\n"
    )
    with pytest.raises(EntrantError, match="needs a value for total; write --set"):
        resolve(f"{path}:Needy")
    assert resolve(f"{path}:Needy", sets={"total": "10"}).fixed == {"total": 10}


def test_description_names_all_that_matters() -> None:
    words = resolve("torch.optim:Muon").describe()
    for part in (
        "torch.optim:Muon",
        "torch.optim.Muon",
        "ns_steps=5",
        "lr log 1e-05..0.1 (as muon)",
    ):
        assert part in words
