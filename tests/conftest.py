"""What all tests share: their own folders, the same random numbers, skips with reasons."""

from __future__ import annotations

import functools
import gc
import os
import random
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from torch import Tensor

#: Variables of the package that say where to find things; tests may use them. All others are
#: taken away, so that a developer's settings change no result.
KEPT = {"ANYORDER_DATA", "ANYORDER_SEEDS", "ANYORDER_TEST_POSTGRES"}

#: Milliseconds that a browser may take for anything. Pages are waited for, never timed.
PATIENCE = 300_000

hypothesis.settings.register_profile(
    "anyorder",
    deadline=None,  # two busy cores; the timeout of pytest is the limit
    derandomize=bool(os.environ.get("CI")),
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("anyorder")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Golden traces change by this flag alone."""
    parser.addoption("--write-golden", action="store_true", help="write golden traces anew")


def pytest_configure(config: pytest.Config) -> None:
    """Compiled rules are kept between runs of the tests, apart from those of the user."""
    for name in [n for n in os.environ if n.startswith("ANYORDER_") and n not in KEPT]:
        del os.environ[name]
    cache = getattr(config, "cache", None)
    if cache is not None:
        os.environ["ANYORDER_CACHE"] = str(cache.mkdir("anyorder"))
    os.environ["MPLBACKEND"] = "agg"
    database, worker = (
        os.environ.get(n) for n in ("ANYORDER_TEST_POSTGRES", "PYTEST_XDIST_WORKER")
    )
    if database and worker:  # tests empty their database, so each process has its own
        os.environ["ANYORDER_TEST_POSTGRES"] = f"{database}_{worker}"


def pytest_make_parametrize_id(val: object) -> str | None:
    """Bytes are named by their number: some hold a time, and names must not change between runs."""
    return f"{len(val)}-bytes" if isinstance(val, bytes) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked ``gpu`` are skipped where there is none."""
    if torch.cuda.is_available():
        return
    reason = pytest.mark.skip(reason="needs an NVIDIA card")
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(reason)


@pytest.fixture(autouse=True, scope="module")
def _only_new_garbage() -> None:
    """What is there before a module stays for good: garbage collection need not walk over it."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _same_random_numbers() -> None:
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - code under test may draw from the global generator
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a test stores for the user lands in its own folder."""
    monkeypatch.setenv("ANYORDER_HOME", str(tmp_path / "home"))


@pytest.fixture(scope="session")
def _as_exported() -> Callable[..., Callable[[list[Tensor]], None]]:
    """Makes kernels as the engine does, up to the C++ compiler: programs, once exported, are run.

    A compiler takes five to fifteen seconds for each kernel on a machine that has not met it.
    """
    from anyorder.engine import kernels

    export = kernels._compile

    @functools.cache
    def kernel(program: Any, dtypes: tuple[torch.dtype, ...], *where: Any) -> Any:
        export(program, dtypes, *where)
        count = len(dtypes)

        def run(arguments: list[Tensor]) -> None:
            scalars = zip(program.scalars, arguments[count:], strict=True)
            program(arguments[:count], dict(scalars))

        return run

    return kernel


@pytest.fixture
def exported_kernels(
    _as_exported: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Compiled rules run as they were exported for the compiler."""
    from anyorder.engine import kernels

    monkeypatch.setattr(kernels, "_compile", _as_exported)
    monkeypatch.setattr(kernels, "_build", lambda *_: None)
    monkeypatch.setattr(kernels, "_load", lambda _: None)
    kernels.kernel_for.cache_clear()
    yield
    kernels.kernel_for.cache_clear()


@pytest.fixture(params=["eager", "exported", pytest.param("compiled", marks=pytest.mark.slow)])
def engine(request: pytest.FixtureRequest) -> str:
    """The modes of an engine; kernels come from the compiler in the slow run alone."""
    if request.param == "exported":
        request.getfixturevalue("exported_kernels")
    return "eager" if request.param == "eager" else "compiled"


@pytest.fixture(params=["inference mode", "default device", "default dtype"])
def user_mode(request: pytest.FixtureRequest) -> Callable[[], AbstractContextManager[None]]:
    """Contexts of PyTorch's own in which the library may be used for the first time."""

    @contextmanager
    def entered() -> Iterator[None]:
        device, dtype = torch.get_default_device(), torch.get_default_dtype()
        if request.param == "default device":
            torch.set_default_device("meta")
        elif request.param == "default dtype":
            torch.set_default_dtype(torch.float64)
        try:
            with torch.inference_mode(request.param == "inference mode"):
                yield
        finally:
            torch.set_default_device(None if device.type == "cpu" else device)
            torch.set_default_dtype(dtype)

    return entered


@pytest.fixture(scope="session")
def in_two_processes(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[int, Any]]:
    """Does something in two new processes that know of each other; what each found, by rank.

    They call ``work(rank, file, found, *given)``: the file is where they meet, and each puts what
    it found into ``found[rank]``.
    """
    from anyorder.testing.elsewhere import processes

    def run(work: Callable[..., None], *given: Any) -> dict[int, Any]:
        where = tmp_path_factory.mktemp("processes") / "meet"
        start = processes().get_start_method()
        with mp.Manager() as manager:
            found = manager.dict()
            mp.start_processes(work, (str(where), found, *given), nprocs=2, start_method=start)
            return dict(found)

    return run


@pytest.fixture
def data_folder() -> Path:
    """The folder of real data sets."""
    folder = os.environ.get("ANYORDER_DATA")
    if not folder:
        pytest.skip("ANYORDER_DATA does not name a folder of data sets")
    return Path(folder)


class Patient:
    """A browser whose pages may take as long as a test may."""

    def __init__(self, browser: Any) -> None:
        self._browser = browser

    def _made(self, made: Any) -> Any:
        made.set_default_timeout(PATIENCE)
        return made

    def new_context(self, **options: Any) -> Any:
        """A context of its own, as Playwright's."""
        return self._made(self._browser.new_context(**options))

    def new_page(self, **options: Any) -> Any:
        """A page in a context of its own, as Playwright's."""
        return self._made(self._browser.new_page(**options))


@pytest.fixture(scope="module")
def browser() -> Iterator[Patient]:
    """Headless Chromium under Playwright, with no connection to anywhere.

    One for each module: while it lives, no other event loop can run in the process.
    """
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    names = ("chromium", "chromium-browser", "google-chrome")
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        pytest.skip("needs Chromium")
    quiet = ["quic", "first-run", "background-networking", "component-update", "sync"]
    switches = ["no-sandbox", "disable-gpu", "no-first-run", *(f"disable-{q}" for q in quiet)]
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=path, args=[f"--{switch}" for switch in switches], timeout=PATIENCE
        )
        sync_api.expect.set_options(timeout=PATIENCE)
        yield Patient(chromium)
        chromium.close()


@pytest.fixture
def at_once() -> Callable[[Callable[[], object]], list[Exception]]:
    """Does something in six threads at once and returns what went wrong."""

    def run(task: Callable[[], object]) -> list[Exception]:
        errors: list[Exception] = []

        def caught() -> None:
            try:
                task()
            except Exception as error:
                errors.append(error)

        threads = [threading.Thread(target=caught) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return errors

    return run
