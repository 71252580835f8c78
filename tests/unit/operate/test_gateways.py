"""A command for a whole fleet: every gateway is asked with the operator's key, whatever the others do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import msgspec
import pytest

from deploy.commands.named_fleet import of_fleet
from deploy.fleet.inventory import Fleet as Inventory
from deploy.migration import journal
from mt5crs.client.gateway import GatewayClient
from mt5crs.local_fleet.rehearsal import MAGIC, Fleet
from mt5crs.operate.connection import ConnectionSettings
from mt5crs.operate.gateways import ask, show
from mt5crs.protocol import replies, requests
from mt5crs.settings.schema import load


def inventory(fleet: Fleet, **gateway: Any) -> Inventory:
    """A fleet of two gateways: the one that runs, and one where nothing listens."""
    connection = load(ConnectionSettings, fleet.environment("reconciler"))
    common = {
        "fleet_operators": [{"name": "ops"}],
        "vault_client_secret_keys": {"ops": fleet.secrets["ops"]},
        "fleet_address": "127.0.0.1",
        "fleet_gateway_public_keys": dict.fromkeys(("gtw-01", "gtw-02"), connection.gateway_public_key),
        **gateway,
    }
    runs = {"gateway_port": connection.gateway_port, "gateway_pub_port": connection.gateway_pub_port}
    hosts = {
        "gtw-01": {**common, **runs},
        "gtw-02": {**common, "gateway_port": 1, "gateway_pub_port": 2},
        "inf-01": {"fleet_magic_number": MAGIC, "fleet_gateway": "gtw-01"},
    }
    groups = {"gateway": ("gtw-01", "gtw-02"), "inf": ("inf-01",)}
    return Inventory(Path("inventory/x.yml"), "x", hosts, groups)


def halt(client: GatewayClient, connection: ConnectionSettings) -> replies.HaltState:
    return client.call(
        requests.Halt, replies.HaltState, magic=connection.magic_number, scope="FLEET", reason="drill"
    )


def test_one_that_is_down_keeps_no_other_from_being_halted(
    fleet: Fleet, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet.start_ready("gateway")
    found = [
        replace(
            target,
            connection=msgspec.structs.replace(target.connection, sync_timeout_s=1.0, sync_retry_count=1),
        )
        for target in of_fleet(inventory(fleet), None)
    ]
    assert [target.magics for target in found] == [{MAGIC}, frozenset()]
    answers = ask(found, halt)
    assert show(answers, lambda answer: str(len(answer.halts)), as_json=False) == 1
    told = capsys.readouterr()
    assert told.out.splitlines() == ["gtw-01", "1"]
    assert told.err.startswith("error: gtw-02: ")
    assert fleet.secrets["ops"] not in told.out + told.err + repr(found)


@pytest.mark.parametrize(
    ("changes", "operator", "why"),
    [
        ({"vault_client_secret_keys": {}}, None, "the vault has no secret key of the operator ops"),
        ({}, "nobody", "has no 'nobody'; there are ops"),
        ({"fleet_operators": []}, None, "there are none"),
    ],
)
def test_without_a_key_nobody_is_asked(
    fleet: Fleet, changes: dict[str, Any], operator: str | None, why: str
) -> None:
    with pytest.raises(click.ClickException, match=why):
        of_fleet(inventory(fleet, **changes), operator)


def test_while_a_gateway_moves_a_halt_is_tried_at_both_addresses(fleet: Fleet, tmp_path: Path) -> None:
    fleet.start_ready("gateway")
    # The inventory says the new address already; the gateway still listens at the former one.
    of = replace(inventory(fleet), inventory=tmp_path / "x.yml")
    moved = replace(of, hosts={**of.hosts, "gtw-01": {**of.hosts["gtw-01"], "fleet_address": "127.0.0.2"}})
    unmoved = of_fleet(moved, None)[0]
    journal.Journal(
        id="1", inventory=str(moved.inventory), host="gtw-01", old="127.0.0.1", new="127.0.0.2", who="me",
        reason="rack", began="then",
    ).write()  # fmt: skip
    (target, other) = of_fleet(moved, None)
    assert other.formers == ()
    assert [one.gateway_host for one in target.formers] == ["127.0.0.1"]

    def quick(one: ConnectionSettings) -> ConnectionSettings:
        return msgspec.structs.replace(one, sync_timeout_s=0.5, sync_retry_count=1)

    for at, gets_through in ((target, True), (unmoved, False)):
        short = replace(at, connection=quick(at.connection), formers=tuple(map(quick, at.formers)))
        (answer,) = ask([short], halt)
        assert (answer.value is not None) is gets_through, answer.error
