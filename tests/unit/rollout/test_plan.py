"""A plan says what will be done, and is refused once the fleet or what is wanted has moved."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deploy.fleet.inventory import Fleet
from deploy.fleet.services import NAMES
from deploy.rollout import plan as plans
from deploy.rollout.batches import BASELINE, CANARY, INF, MONITORING, OrderError, Policy, Spoken
from deploy.rollout.consequences import shown
from deploy.rollout.generation import Bundle, Desired
from deploy.rollout.plan import Plan, PlanError

SETTINGS: dict[str, Any] = {
    "fleet_strategy": "rolling",
    "fleet_canary_steps": [5, 20, 50, 100],
    "fleet_max_unavailable_percent": 25,
    "fleet_gateway": "gtw-01",
}
GROUPS = {"hub": ("hub-01",), "inf": ("inf-01", "inf-02"), "gateway": ("gtw-01",)}
HOSTS = ("hub-01", "inf-01", "inf-02", "gtw-01")
WITHOUT_CODE = ("baseline", "monitoring")
NEW = Bundle(Path("dist/new.tar"), "c" * 64, Spoken(1, 1))


@pytest.fixture(autouse=True)
def wanted(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What `desired` answers: a digest by service; the templates themselves are tested elsewhere."""
    digests = {service: f"{service}-new" for service in NAMES}

    def desired(service: str, settings: dict[str, Any]) -> Desired:
        bundle = None if service in WITHOUT_CODE else settings.get("bundle", NEW)
        return Desired(service, "{}", bundle, digests[service], 180)

    monkeypatch.setattr(plans, "desired", desired)
    return digests


def fleet(**settings: Any) -> Fleet:
    hosts = {host: {**SETTINGS, "group_names": [], **settings} for host in HOSTS}
    return Fleet(Path("inventory/lab.yml"), "lab", hosts, GROUPS)


def status(host: str, digest: str = "new", protocol: tuple[int, int] | None = (1, 1)) -> dict[str, Any]:
    services = ["baseline", "monitoring"]
    services += ["gateway"] if host == "gtw-01" else []
    services += ["hub"] if host == "hub-01" else []
    services += ["reconciler", "strategy"] if host.startswith("inf") else []
    told = {"min": protocol[0], "max": protocol[1]} if protocol else None
    return {
        "services": {
            service: {
                "current": "0001-abc",
                "digest": f"{service}-{digest}",
                "state": "confirmed",
                "intact": True,
                "units": {f"{service}.service": "active"},
                "protocol": told if service not in WITHOUT_CODE else None,
            }
            for service in services
        }
    }


def statuses(digest: str = "new", **other: Any) -> dict[str, Any]:
    return {host: status(host, digest, **other) for host in HOSTS}


def test_nothing_to_do_has_no_steps() -> None:
    made = plans.make(fleet(), statuses())
    assert made.steps == ()
    assert plans.shown(made) == [f"plan {made.id}: no service has anything to do"]


def test_only_services_that_change() -> None:
    seen = statuses()
    seen["inf-02"]["services"]["strategy"]["digest"] = "old"
    made = plans.make(fleet(), seen)
    assert [(step.kind, step.hosts) for step in made.steps] == [(INF, ("inf-02",))]
    seen["inf-02"] = status("inf-02")
    seen["hub-01"]["services"]["monitoring"]["units"]["monitoring.service"] = "inactive"
    made = plans.make(fleet(), seen)
    assert [(step.kind, step.hosts) for step in made.steps] == [(MONITORING, ("hub-01",))]


def test_a_fresh_fleet_gets_everything() -> None:
    made = plans.make(fleet(), {host: {} for host in HOSTS})
    assert [step.hosts for step in made.steps] == [
        *(HOSTS, ("gtw-01",), ("inf-01",), ("inf-02",)),
        *(("hub-01",), HOSTS),
    ]
    assert made.steps[0].kind == BASELINE
    assert made.observed["inf-01"] == dict.fromkeys(
        ("baseline", "reconciler", "strategy", "monitoring"), plans.NOTHING
    )
    assert not made.monitored(("hub-01",))
    assert made.touched(made.steps[0]) == HOSTS


def test_a_hub_outside_the_run_is_assumed_to_be_monitored() -> None:
    made = plans.make(fleet(), {"inf-01": status("inf-01", "old")})
    assert made.monitored(("hub-01",))
    assert list(made.observed) == ["inf-01"]


def test_some_services_only() -> None:
    made = plans.make(fleet(), statuses("old"), services=("monitoring",))
    assert [step.kind for step in made.steps] == [MONITORING]
    assert set(made.observed["inf-01"]) == {"baseline", "reconciler", "strategy", "monitoring"}


def test_the_id_follows_from_what_is_planned() -> None:
    made = plans.make(fleet(), statuses("old"))
    assert made.id == plans.make(fleet(), statuses("old")).id
    others = [
        plans.make(fleet(), statuses("older")),
        plans.make(fleet(), statuses("old"), policy=Policy(CANARY)),
        plans.make(fleet(baseline_ssh_sources=["10.0.0.1"]), statuses("old")),
    ]
    # What runs is named by its generation: another digest under the same name cannot be.
    assert [other.id == made.id for other in others] == [True, False, False]


def test_secrets_are_in_no_plan() -> None:
    secret = {"baseline_windows_account_password": "hunter2"}
    assert plans.make(fleet(**secret), statuses()).id == plans.make(fleet(), statuses()).id


def test_protocol_versions_decide_the_order() -> None:
    two = replace(NEW, protocol=Spoken(2, 2))
    seen = statuses("old", protocol=(1, 2))
    for host in ("inf-01", "inf-02"):
        seen[host] = status(host, "old", protocol=(1, 1))
    made = plans.make(fleet(bundle=two), seen)
    assert [step.kind for step in made.steps] == ["baseline", "inf", "inf", "gateway", "hub", "monitoring"]
    seen["gtw-01"] = status("gtw-01", "old", protocol=(1, 1))
    with pytest.raises(OrderError, match="neither order works"):
        plans.make(fleet(bundle=two), seen)
    with pytest.raises(OrderError, match="reconciler of inf-01 will speak protocol 1"):
        plans.make(fleet(bundle=two), seen, services=("gateway",))


def test_a_gateways_new_key_has_its_inf_hosts_first() -> None:
    keys = {"gtw-01": "b" * 64}
    seen = statuses("old")
    for host in ("inf-01", "inf-02"):
        for service in ("reconciler", "strategy"):
            seen[host]["services"][service]["server_key"] = "a" * 64

    made: Plan

    def kinds(**other: Any) -> list[str]:
        nonlocal made
        made = plans.make(fleet(fleet_gateway_public_keys=keys), {**seen, **other})
        first = [step.kind for step in made.steps][:2] == ["baseline", "inf"]
        follows = any(step.kind == "gateway" for step in made.steps)
        assert made.both_keys == (("inf-01", "inf-02") if first and follows else ())
        return [step.kind for step in made.steps]

    assert kinds() == ["baseline", "inf", "inf", "gateway", "hub", "monitoring"]
    told = shown(
        replace(made, work={of: work for of, work in made.work.items() if of[1] != "gateway"}), seen, {}
    )
    assert (
        "  keys       inf-01, inf-02: first, since a gateway gets another; until confirmed both are taken"
        in told
    )
    keys["gtw-01"] = "a" * 64
    assert kinds() == ["baseline", "gateway", "inf", "inf", "hub", "monitoring"]
    keys["gtw-01"] = "b" * 64
    # Nothing changes at the gateway, or the host's tool does not say which key it takes.
    assert kinds(**{"gtw-01": status("gtw-01")}) == ["baseline", "inf", "inf", "hub", "monitoring"]
    for host in ("inf-01", "inf-02"):
        seen[host] = status(host, "old")
    assert kinds() == ["baseline", "gateway", "inf", "inf", "hub", "monitoring"]


# --- plan → apply -------------------------------------------------------------------------------------------


@pytest.fixture
def kept(tmp_path: Path) -> tuple[Plan, Path]:
    made = plans.make(fleet(), statuses("old"))
    plans.save(made, tmp_path)
    return made, tmp_path


def test_an_unmoved_plan_may_be_applied(kept: tuple[Plan, Path]) -> None:
    made, directory = kept
    plans.require_unmoved(made.id, plans.make(fleet(), statuses("old")), directory)
    plans.require_unmoved(made.id[:4], plans.make(fleet(), statuses("old")), directory)
    assert (
        json.loads((directory / f"{made.id}.json").read_text())["wanted"]["gtw-01"]["gateway"]
        == "gateway-new"
    )


def test_a_fleet_that_moved_is_named(kept: tuple[Plan, Path]) -> None:
    made, directory = kept
    seen = statuses("old")
    seen["inf-01"]["services"]["strategy"]["current"] = "0002-def"
    seen["inf-02"]["services"]["reconciler"]["state"] = "provisional"
    with pytest.raises(PlanError) as refused:
        plans.require_unmoved(made.id, plans.make(fleet(), seen), directory)
    text = str(refused.value)
    assert "inf-01 strategy: ran 0001-abc confirmed when it was planned, runs 0002-def confirmed now" in text
    assert "inf-02 reconciler: ran 0001-abc confirmed when it was planned, runs 0001-abc provisional" in text
    assert "Nothing was changed" in text
    assert "gtw-01" not in text


def test_other_wishes_are_named(kept: tuple[Plan, Path], wanted: dict[str, str]) -> None:
    made, directory = kept
    wanted["gateway"] = "gateway-newer"
    now = plans.make(fleet(baseline_ssh_sources=["10.0.0.1"]), statuses("old"), policy=Policy(CANARY))
    with pytest.raises(PlanError) as refused:
        plans.require_unmoved(made.id, now, directory)
    text = str(refused.value)
    assert "gtw-01 gateway: wanted is gateway-newe, planned was gateway-new" in text
    assert "strategy: planned rolling, now canary" in text
    assert "hub-01: its settings of baseline or fleet have changed" in text


def test_other_hosts_and_steps_are_named(kept: tuple[Plan, Path]) -> None:
    made, directory = kept
    fewer = plans.make(fleet(), {host: status(host, "old") for host in HOSTS[:-1]})
    with pytest.raises(PlanError, match="gtw-01: planned, but not part of this run"):
        plans.require_unmoved(made.id, fewer, directory)
    wider = plans.make(fleet(), statuses("old"), policy=Policy(max_unavailable_percent=100))
    assert plans.differences(made.document(), wider.document()) == []
    wider = replace(wider, steps=wider.steps[:1])
    assert plans.differences(made.document(), wider.document()) == [
        "the steps: the settings of the strategy have changed"
    ]


def test_an_unknown_plan_lists_what_there_is(kept: tuple[Plan, Path], tmp_path: Path) -> None:
    made, directory = kept
    with pytest.raises(PlanError, match=rf"no plan 'nonsense'; kept are {made.id}"):
        plans.load("nonsense", directory)
    with pytest.raises(PlanError, match="kept are none"):
        plans.load("nonsense", tmp_path / "nowhere")


def test_what_others_put_beside_a_service_is_told_whatever_there_is_to_do() -> None:
    override = "/etc/systemd/system/mt5crs-gateway.service.d/override.conf"
    seen = {
        "gtw-01": {"services": {"gateway": {"drop_ins": [override]}, "monitoring": {"drop_ins": []}}},
        "inf-01": {"services": {"strategy": {"drop_ins": None}, "reconciler": {}}},
        "inf-02": {},
    }
    (line,) = plans.beside(seen)
    assert line.startswith(f"  gtw-01: gateway: others' drop-ins beside its units: {override}")
