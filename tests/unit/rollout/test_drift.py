"""What differs is told by name, and what is left out is counted: nothing disappears silently."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from deploy.commands import config_drift
from deploy.fleet.inventory import Fleet, resolve
from deploy.fleet.rendering import render
from deploy.fleet.services import NAMES
from deploy.rollout import generation, plan
from deploy.rollout.drift import CODE, HOW, MANIFEST, Differing, Ignore, refused, sort_out, what_differs
from deploy.rollout.generation import Bundle
from mt5crs.__main__ import main
from tests.unit.fleets import EXTRA, make_inventory

UNIT = "mt5crs-reconciler.service"


@pytest.fixture
def inventory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(generation, "find_bundle", lambda name: Bundle(Path(name), "0" * 64))
    made = make_inventory(tmp_path)
    for group in ("hub", "inf", "gateway"):
        given = made.parent / "group_vars" / group / "extra.yml"
        given.parent.mkdir(parents=True, exist_ok=True)
        given.write_text(json.dumps(EXTRA))
    return made


def written(specification: dict[str, Any]) -> dict[str, bytes]:
    """The files of a generation as staging writes them."""
    units = specification["units"] | (specification.get("standby") or {}).get("units", {})
    units |= (specification.get("shadow") or {}).get("units", {})
    texts = {path: file["content"] for path, file in specification["files"].items()}
    texts |= {f"units/{name}": text for name, text in units.items()}
    files = {path: {"sha256": hashlib.sha256(text.encode()).hexdigest()} for path, text in texts.items()}
    contents = {path: text.encode() for path, text in texts.items()}
    return {**contents, MANIFEST: json.dumps({"files": files}).encode()}


def runs(fleet: Fleet, host: str, service: str) -> dict[str, bytes]:
    return written(json.loads(generation.desired(service, fleet.hosts[host]).specification))


@pytest.mark.parametrize(
    ("service", "values", "expected"),
    [
        ("reconciler", {"reconciler_recheck_interval_s": 12.5}, ("reconciler_recheck_interval_s",)),
        ("reconciler", {"reconciler_log_level": "DEBUG"}, ("reconciler_log_level",)),
        (
            "reconciler",
            {"reconciler_log_level": "DEBUG", "reconciler_sync_timeout_s": 9.0},
            ("reconciler_log_level", "reconciler_sync_timeout_s"),
        ),
        ("gateway", {"fleet_gateway_former_public_keys": {}}, (HOW,)),
        ("strategy", {"strategy_memory_max_mb": 777}, None),
    ],
)
def test_settings_are_told_by_name(
    inventory: Path, service: str, values: dict[str, Any], expected: tuple[str, ...] | None
) -> None:
    host = "gtw-01" if service == "gateway" else "inf-01"
    before, after = resolve(inventory), resolve(inventory, values)
    want = generation.desired(service, after.hosts[host])
    found = what_differs(want, after.hosts[host], runs(before, host, service), "0" * 64)
    if expected is None:
        assert all(name.endswith((".service", ".conf")) or name == HOW for name in found), found
    else:
        assert found == expected


def test_code_units_and_files_are_told_by_name(inventory: Path) -> None:
    fleet = resolve(inventory)
    want = generation.desired("reconciler", fleet.hosts["inf-01"])
    there = runs(fleet, "inf-01", "reconciler")
    assert what_differs(want, fleet.hosts["inf-01"], there, "1" * 64) == (CODE,)
    specification = json.loads(want.specification)
    specification["units"][UNIT] += "# another release\n"
    specification["files"]["old.txt"] = {"content": "gone"}
    assert what_differs(want, fleet.hosts["inf-01"], written(specification), "0" * 64) == (UNIT, "old.txt")


@pytest.mark.parametrize(
    ("words", "left", "ignored", "idle"),
    [
        ([], ["a", "b"], 0, []),
        (["a"], ["b"], 1, []),
        (["inf-02:a"], ["a", "b"], 0, ["inf-02:a"]),
        (["inf-*:*"], None, 2, []),
        (["reconciler"], None, 2, []),
        (["a", "b", "c"], None, 2, ["c"]),
    ],
)
def test_what_is_left_out_is_told(
    words: list[str], left: list[str] | None, ignored: int, idle: list[str]
) -> None:
    one = Differing("inf-01", "reconciler", "0001-x confirmed", "activate y", ("a", "b"))
    told = sort_out([one], [Ignore(word) for word in words])
    assert [list(row.what) for row in told.differs] == ([] if left is None else [left])
    assert (len(told.ignored), told.idle) == (ignored, idle)


def test_what_is_down_or_not_known_is_left_out_with_its_service_alone() -> None:
    down = Differing("inf-01", "reconciler", "0001-x confirmed", "start x")
    assert sort_out([down], [Ignore("reconciler_log_level"), Ignore("mt5crs-*")]).differs == [down]
    assert sort_out([down], [Ignore("inf-01:reconciler")]).ignored == [
        ("inf-01", "reconciler", "", "inf-01:reconciler")
    ]


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("reconciler_log_levle", "did you mean reconciler_log_level?"),
        ("inf-1:reconciler_log_level", "there is no host 'inf-1'; did you mean inf-01?"),
        ("inf-01:", "it names no setting, file or service"),
        ("gatway_*", "there is no setting, file or service 'gatway_*'"),
    ],
)
def test_a_word_about_nothing_is_refused(word: str, said: str) -> None:
    (told,) = refused([Ignore(word)], ["inf-01", "gtw-01"], ["reconciler_log_level", "gateway_port"])
    assert told.startswith(f"--ignore {word}: ")
    assert said in told


# --- the command --------------------------------------------------------------------------------------------


def ask(
    inventory: Path, monkeypatch: pytest.MonkeyPatch, *words: str, unreachable: bool = False, **now: Any
) -> Result:
    """The command on the fleet of `prepare`."""
    prepare(inventory, monkeypatch, unreachable=unreachable, **now)
    return CliRunner().invoke(main, ["--inventory", str(inventory), "config", "drift", *words])


def prepare(
    inventory: Path, monkeypatch: pytest.MonkeyPatch, *, unreachable: bool = False, **now: Any
) -> None:
    """A fleet whose reconcilers ran with another log level when they were deployed."""
    fleet = resolve(inventory)
    old = resolve(inventory, {"reconciler_log_level": "DEBUG"})
    answers: dict[str, Any] = {}
    for host in fleet.hosts:
        of = old if host.startswith("inf") else fleet
        services = {
            name: {
                "digest": generation.desired(name, of.hosts[host]).digest, "current": f"0001-{name}",
                "bundle": "0" * 64, "state": "confirmed", "intact": True, "units": {},
                **(now if name == "reconciler" else {}),
            }
            for name in NAMES if plan.has_service(fleet, host, name)
        }  # fmt: skip
        answers[host] = {"services": services}
    if unreachable:
        answers["inf-02"] = "connection refused"
    by_address = {id_of(of): host for host, of in fleet.hosts.items()}

    def files(variables: dict[str, Any], service: str, _generation: str) -> dict[str, bytes]:
        return runs(old, by_address[id_of(variables)], service)

    monkeypatch.setattr(config_drift, "statuses", lambda _fleet: answers)
    monkeypatch.setattr(config_drift, "_files_of", files)


def id_of(variables: Any) -> str:
    return str(variables["ansible_host"])


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        ([], 2, "reconciler_log_level"),
        (
            ["--ignore", "reconciler_log_level"],
            0,
            "every service runs as the inventory wants it, but for what",
        ),
        (["--ignore", "inf-01:reconciler_log_level"], 2, "ignored: 1"),
        (["--ignore", "inf-*:*_log_level"], 0, "ignored: 2"),
        (["--ignore", "gateway_port"], 2, "--ignore gateway_port: nothing of it differs"),
        (["--ignore", "reconciler_log_levl"], 1, "did you mean reconciler_log_level?"),
    ],
)
def test_exit_status_and_what_is_said(
    inventory: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], status: int, said: str
) -> None:
    done = ask(inventory, monkeypatch, *words)
    assert done.exit_code == status, done.output
    assert said in done.output


def test_what_is_wanted_is_rendered_once(inventory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rendered: list[str] = []

    def counting(name: str, settings: Any) -> str:
        rendered.append(name)
        return render(name, settings)

    prepare(inventory, monkeypatch)
    monkeypatch.setattr(generation, "render", counting)
    done = CliRunner().invoke(
        main, ["--inventory", str(inventory), "config", "drift", "--ignore", "reconciler"]
    )
    assert done.exit_code == 0, done.output
    assert rendered.count("release/gateway.json.j2") == 1  # one gateway, of which nothing differs


def test_what_is_ignored_is_in_the_document(inventory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = ask(inventory, monkeypatch, "--json", "--ignore", "inf-02:reconciler", "--ignore", "gateway_port")
    told = json.loads(done.stdout)
    assert [(one["host"], one["what"]) for one in told["differs"]] == [("inf-01", ["reconciler_log_level"])]
    assert told["ignored"] == [
        {"host": "inf-02", "service": "reconciler", "name": "reconciler_log_level", "by": "inf-02:reconciler"}
    ]
    assert told["ignores_nothing"] == ["gateway_port"]


def test_a_host_that_is_silent_is_never_the_same(inventory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ask(inventory, monkeypatch, "--ignore", "*", unreachable=True).exit_code == 1


def test_a_damaged_service_is_not_left_out_with_a_setting(
    inventory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for now in ({"intact": False}, {"state": "provisional"}, {"units": {UNIT: "failed"}}):
        assert ask(inventory, monkeypatch, "--ignore", "reconciler_log_level", **now).exit_code == 2
