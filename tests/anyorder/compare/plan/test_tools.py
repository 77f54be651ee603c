"""Optimizers of other libraries, found by name, with options checked by the library."""

from __future__ import annotations

import pytest

from anyorder.compare.plan import tools
from anyorder.compare.plan.entrants import EntrantError, resolve, resolve_all, suited
from anyorder.extras import MissingExtraError
from anyorder.hyper import UnknownOptionError


@pytest.mark.parametrize(
    ("spec", "order", "needs"),
    [
        ("scipy:Nelder-Mead", 0, ["value"]),
        ("scipy:l-bfgs-b", 1, ["grad"]),
        ("scipy:Newton-CG", 2, ["grad", "hessian"]),
        ("scipy:trust-krylov", 2, ["grad", "hessian", "value"]),
        ("optuna:RandomSampler", 0, ["value"]),
    ],
)
def test_a_tool_by_name(spec: str, order: int, needs: list[str]) -> None:
    found = resolve(spec)
    assert (found.order, found.needs, found.scheduled, found.ours) == (order, needs, False, False)
    library = spec.partition(":")[0]
    assert found.version.startswith(f"{library} ")
    assert found.path.startswith(f"{library}.")


def test_only_the_main_option_is_searched() -> None:
    assert resolve("scipy:L-BFGS-B").space == ()
    (radius,) = resolve("optuna:TPESampler").space
    assert (radius.name, radius.range, radius.source) == ("radius", "log 0.01..100", "by name")
    assert resolve("optuna:TPESampler", sets={"radius": 2.0}).space == ()


def test_options_of_the_library() -> None:
    (found,) = resolve_all(["lb=scipy:L-BFGS-B"], ["lb.maxcor=5", "lb.tol=1e-3"])
    assert found.settings() == {"maxcor": 5, "tol": 1e-3}
    (found,) = resolve_all(["optuna:TPESampler"], ["optuna.n_startup_trials=3"])
    assert found.fixed == {"n_startup_trials": 3}
    with pytest.raises(EntrantError, match="Unknown solver options: maxcor"):
        resolve("scipy:CG", sets={"maxcor": 5})
    with pytest.raises(UnknownOptionError, match="n_startup_trials"):
        resolve("optuna:TPESampler", sets={"n_startup_trial": 3})


def test_the_user_can_search_an_option_of_the_library() -> None:
    (found,) = resolve("scipy:L-BFGS-B", ranges={"maxcor": "5|10|20"}).space
    assert (found.choices, found.default, found.source) == ((5, 10, 20), None, "user")


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("scipy:L-BFGS", "Did you mean 'L-BFGS-B'"),
        ("scipy:trust-exact", "no optimizer 'trust-exact' of scipy"),
        ("optuna:TPESample", "Did you mean 'TPESampler'"),
        ("optuna:GridSampler", "search_space"),
    ],
)
def test_what_cannot_be_used_does_not_stop_the_others(spec: str, says: str) -> None:
    unusable, other = resolve_all([spec, "sgd"])
    assert unusable.failed is not None and says in unusable.failed
    assert other.failed is None


def test_a_library_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(module: str, *, extra: str) -> None:
        raise MissingExtraError(
            f"{module} is not installed; write: pip install 'anyorder[{extra}]'"
        )

    monkeypatch.setattr(tools, "require", missing)
    for spec in ("cma:CMAEvolutionStrategy", "nevergrad:OnePlusOne"):
        with pytest.raises(EntrantError, match=r"anyorder\[blackbox\]"):
            resolve(spec)


def test_too_many_parameters() -> None:
    found = resolve("scipy:BFGS")
    assert suited(found, "p", 5000, judged=False) is found
    failed = suited(found, "p", 5001, judged=False).failed
    assert failed == (
        "5,001 parameters are too many: at most 5,000, as it keeps a square matrix"
    )  # fmt: skip
    assert suited(resolve("scipy:CG"), "p", 10**9, judged=False).failed is None


@pytest.mark.parametrize("spec", ["adamw", "mezo", "scipy:Powell", "torch.optim:SGD"])
def test_rankings_are_not_enough(spec: str) -> None:
    failed = suited(resolve(spec), "p", 10, judged=True).failed
    assert failed is not None and failed.startswith("p answers with rankings only")


def test_rankings_are_enough() -> None:
    assert suited(resolve("rank_sgd"), "p", 10, judged=True).failed is None


def test_rankings_are_enough_for_cma() -> None:
    pytest.importorskip("cma", reason="needs cma")
    assert suited(resolve("cma:CMAEvolutionStrategy"), "p", 10, judged=True).failed is None
