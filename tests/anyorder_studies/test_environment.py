from __future__ import annotations

import getpass
import platform
from pathlib import Path

from anyorder_studies.environment import cpu_model, environment


def test_it_says_what_was_used_and_nothing_about_who() -> None:
    found = environment()
    assert {"python", "torch", "numpy", "scipy", "anyorder", "cpu", "threads", "platform"} == set(
        found
    )
    assert found["python"] == platform.python_version()
    text = " ".join(map(str, found.values()))
    assert platform.node() not in text
    assert "/" not in text.replace(str(found["cpu"]), "")
    assert getpass.getuser() not in text.split()


def test_the_processor_is_read_from_the_system(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nmodel name\t: Abacus 3000: fast\n")
    assert cpu_model(cpuinfo) == "Abacus 3000: fast"
    assert cpu_model(tmp_path / "none") in (platform.processor(), platform.machine())
