"""Rights before content, and nothing that others may read, whoever granted it."""

from __future__ import annotations

import json
from pathlib import Path, PureWindowsPath
from types import SimpleNamespace
from typing import Any

import pytest

from mt5crs_release.desired.spec import parse_spec
from mt5crs_release.errors import FailedError
from mt5crs_release.generations import generation
from mt5crs_release.systems.windows import rights as windows_rights

ALLOWED = {windows_rights.SYSTEM_SID, windows_rights.ADMINISTRATORS_SID, "S-1-5-21-1-2-3-1001"}


def specification() -> dict[str, Any]:
    """A gateway's generation as the template renders it for Windows, as far as files go."""

    def file(content: str, mode: str) -> dict[str, str]:
        return {"mode": mode, "owner": "root", "group": "root", "content": content}

    return {
        "format": 1,
        "service": "gateway",
        "code": False,
        "files": {".env": file("KEY='canary'\n", "0600"), "data/clients.json": file("{}", "0644")},
        "units": {"mt5crs-gateway.service": "{}"},
        "start": ["mt5crs-gateway.service"],
        "health": {
            "command": ["{current}/check"],
            "timeout_s": 5,
            "min_healthy_s": 0.1,
            "healthy_deadline_s": 1,
            "progress_deadline_s": 2,
            "max_restarts": 0,
        },
        "state_format": 1,
    }


def effects(model: SimpleNamespace) -> list[dict[str, Any]]:
    """The effects log."""
    return [json.loads(line) for line in (model.state.ROOT / "effects.jsonl").read_text().splitlines()]


def test_commands_set_owner_then_entries_then_end_inheritance() -> None:
    path = PureWindowsPath("C:/x")
    assert windows_rights.protection(path, "mt5crs") == [
        ["icacls.exe", "C:\\x", "/setowner", "*S-1-5-32-544"],
        [
            "icacls.exe",
            "C:\\x",
            "/grant:r",
            "*S-1-5-18:(OI)(CI)F",
            "*S-1-5-32-544:(OI)(CI)F",
            "mt5crs:(OI)(CI)RX",
        ],
        ["icacls.exe", "C:\\x", "/inheritance:r"],
    ]


def test_rights_come_before_content(model: SimpleNamespace) -> None:
    generations = model.root / "gateway/generations"
    generation.write(generations, "0001-abc", parse_spec(specification()), "digest", None)
    log = effects(model)
    content = [entry for entry in log if entry["effect"] == "content"]
    assert {entry["path"].rpartition("/")[2] for entry in content} >= {
        ".env",
        "clients.json",
        "manifest.json",
    }
    for entry in content:
        assert set(entry["readers"]) <= ALLOWED, entry
    last_right = max(number for number, entry in enumerate(log) if entry["effect"] == "rights")
    assert last_right < min(number for number, entry in enumerate(log) if entry["effect"] == "content")
    # The rights go with the directory when it gets its name.
    assert set(model.state.readers(generations / "0001-abc/.env")) <= ALLOWED
    assert "canary" not in (model.state.ROOT / "effects.jsonl").read_text()


def test_nothing_is_written_when_the_rights_cannot_be_set(model: SimpleNamespace) -> None:
    with model.state.changing() as now:
        del now["users"]["mt5crs"]
    generations = model.root / "gateway/generations"
    with pytest.raises(FailedError, match=r"rights of .* could not be set"):
        generation.write(generations, "0001-abc", parse_spec(specification()), "digest", None)
    assert not list(model.root.rglob(".env"))


def test_a_right_of_others_is_found_wherever_it_is(model: SimpleNamespace, tmp_path: Path) -> None:
    directory = model.root / "kept"
    directory.mkdir()
    windows_rights.protect(model.kernel, directory)
    (directory / "file").write_text("x")
    windows_rights.check_rights(model.kernel, directory)
    acl = {"owner": "S-1-5-18", "protected": False}
    acl["entries"] = [{"sid": "S-1-1-0", "type": "allow", "rights": "ReadAndExecute"}]
    model.state.set_acl(directory / "file", acl)
    with pytest.raises(FailedError, match=r"file grants rights to WD"):
        windows_rights.check_rights(model.kernel, directory)


@pytest.mark.parametrize(
    ("sddl", "problem"),
    [
        ("D:PAI(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)(A;OICI;0x1200a9;;;S-1-5-21-1-2-3-1001)", None),
        ("D:AI(A;ID;FA;;;SY)(A;ID;FA;;;BA)(A;ID;0x1200a9;;;S-1-5-21-1-2-3-1001)", None),
        ("D:AI(A;ID;FA;;;SY)(A;ID;0x1200a9;;;BU)", "grants rights to BU"),
        ("O:BAG:SYD:(A;;FR;;;WD)", "grants rights to WD"),
        ("D:(D;;FR;;;WD)(A;;FA;;;SY)", None),
        ("D:NO_ACCESS_CONTROL", "everyone may read"),
        ("O:BA", "everyone may read"),
        ("D:(A;;FA)", "cannot be read"),
    ],
)
def test_sddl(sddl: str, problem: str | None) -> None:
    found = list(windows_rights.rights_problems("x", sddl, ALLOWED))
    assert found == [] if problem is None else problem in found[0]


def test_saved_rights_are_pairs_of_lines() -> None:
    saved = "\ufeffa\r\nD:(A;;FA;;;SY)\r\na\\.env\r\nD:(A;ID;FA;;;SY)\r\n"
    assert windows_rights.parse_rights(saved) == {"a": "D:(A;;FA;;;SY)", "a\\.env": "D:(A;ID;FA;;;SY)"}
