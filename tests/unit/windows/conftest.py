"""The release tool as on Windows, in this process: the modelled kernel, a directory as host."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from mt5crs_release.systems import system
from mt5crs_release.systems.windows import system as windows_system

MODEL = Path(__file__).resolve().parents[3] / "tests/windows_model"


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """The modelled host below ``tmp_path``; its ``root`` is C:/ProgramData/mt5crs."""
    monkeypatch.syspath_prepend(str(MODEL))
    from winmodel import commands, kernel, modules, state  # type: ignore[import-not-found]

    monkeypatch.setattr(state, "ROOT", tmp_path)
    replaced = kernel.ModelKernel()
    root = state.local(windows_system.ROOT)
    before = system.use(windows_system.Windows(replaced, str(root)))
    root.mkdir(parents=True)
    with state.changing() as now:
        now["users"]["mt5crs"] = {"sid": "S-1-5-21-1-2-3-1001", "password": "x"}
    yield SimpleNamespace(state=state, kernel=replaced, modules=modules, commands=commands, root=root)
    system.use(before)
    for name in [name for name in sys.modules if name.partition(".")[0] == "winmodel"]:
        module: ModuleType = sys.modules.pop(name)
        del module
