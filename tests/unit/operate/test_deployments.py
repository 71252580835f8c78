"""`mt5crs deployments` reads kept reports and names what differs."""

import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from mt5crs.operate.deployments import deployments


def record(name: str, generation: str, hosts: tuple[str, ...] = ("inf-01",)) -> dict[str, Any]:
    return {
        "id": name,
        "started": "2026-01-01T00:00:00+00:00",
        "outcome": "changed",
        "who": "eve",
        "services": [
            {
                "host": host,
                "service": "strategy",
                "generation": generation,
                "version": "1",
                "state": "confirmed",
            }
            for host in hosts
        ],
    }


def kept(directory: Path, *records: dict[str, Any]) -> Path:
    for one in records:
        (directory / one["id"]).mkdir()
        (directory / one["id"] / "record.json").write_text(json.dumps(one))
    return directory


def run(directory: Path, *words: str) -> tuple[int, str]:
    result = CliRunner().invoke(deployments, ["--reports", str(directory), *words])
    return result.exit_code, result.output


def test_list_show_and_diff(tmp_path: Path) -> None:
    directory = kept(tmp_path, record("aaaa1", "1-a"), record("bbbb2", "2-b", ("inf-01", "inf-02")))
    status, text = run(directory, "list", "--json")
    assert status == 0
    assert [entry["id"] for entry in json.loads(text)] == ["bbbb2", "aaaa1"]
    assert "1-a" in run(directory, "show", "aaaa")[1]
    found = json.loads(run(directory, "diff", "aaaa", "bbbb", "--json")[1])
    assert [(line["host"], line["first"], line["second"]) for line in found] == [
        ("inf-01", "1-a (1) confirmed", "2-b (1) confirmed"),
        ("inf-02", "not part of it", "2-b (1) confirmed"),
    ]
    assert run(directory, "diff", "aaaa", "aaaa")[1].strip() == "no difference"


def test_an_unknown_id_lists_what_there_is(tmp_path: Path) -> None:
    status, text = run(kept(tmp_path, record("aaaa1", "1-a")), "show", "zzz")
    assert status == 1
    assert "aaaa1" in text


def test_diff_and_show_name_what_a_deployment_changed(tmp_path: Path) -> None:
    first, second = record("aaaa1", "1-a"), record("bbbb2", "2-b")
    second["services"][0]["changes"] = [".env STRATEGY_LOG_LEVEL"]
    directory = kept(tmp_path, first, second)
    found = json.loads(run(directory, "diff", "aaaa", "bbbb", "--json")[1])
    assert {
        "host": "inf-01",
        "what": "strategy changes",
        "first": "-",
        "second": ".env STRATEGY_LOG_LEVEL",
    } in found
    assert "STRATEGY_LOG_LEVEL" in run(directory, "show", "bbbb")[1]
