"""`mt5crs phase` against a real gateway: who may promote, on which evidence, and what is told."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mt5crs.operate.phase import judge, phase
from mt5crs.phases.profile import named
from mt5crs.protocol.records import PhaseFact
from mt5crs.protocol.replies import Error, OrderResult, PhaseState
from mt5crs.protocol.requests import OrderSend, PhaseDemote, PhaseQuery
from tests.unit.gateway.phased import CONSTRAINED, MICRO, SHADOW, key, signers
from tests.unit.gateway.running import MAGIC, Running, running


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    settings = {"PHASES": "true", "PHASE_SIGNERS": json.dumps(signers("alice")), "SIM_LEVERAGE": "2000"}
    with running(tmp_path_factory.mktemp("phase"), **settings) as started:
        yield started


def mt5crs_phase(gateway: Running, *arguments: str) -> Result:
    env = gateway.directory / "ops.env"
    values = {
        "GATEWAY_HOST": "127.0.0.1",
        "GATEWAY_PORT": gateway.port,
        "GATEWAY_PUB_PORT": gateway.pub_port,
        "GATEWAY_PUBLIC_KEY": gateway.public,
        "CLIENT_NAME": "ops",
        "CLIENT_SECRET_KEY": gateway.secrets["ops"],
    }
    env.write_text("".join(f"{name}='{value}'\n" for name, value in values.items()))
    env.chmod(0o600)
    return CliRunner().invoke(phase, [*arguments, "--magic", str(MAGIC), "--env-file", str(env)])


def promote(gateway: Running, *more: str, signer: str = "alice") -> Result:
    return mt5crs_phase(
        gateway, "promote", "--by", "alice", "--key", str(key(signer)), "--reason", "drill", *more
    )


def test_from_dry_run_to_micro_and_back(gateway: Running) -> None:
    trader = gateway.client("strategy")
    trader.lease()
    first = trader.order(volume=0.01)
    assert isinstance(first, OrderResult)
    assert first.outcome == "DRY_RUN"
    assert gateway.books("closed_orders") == []

    checked = mt5crs_phase(gateway, "check")
    assert checked.exit_code == 1, checked.output
    assert "refused: days_without_crash is " in checked.output
    assert f"{SHADOW} is left at >= 7" in checked.output
    refused = promote(gateway)
    assert refused.exit_code == 1, refused.output
    assert promote(gateway, "--override").exit_code == 2  # it must end by itself
    forged = promote(gateway, "--override", "--days", "2", signer="mallory")
    assert forged.exit_code == 1
    assert "the signature is not shown to be that of alice" in forged.output
    shown = json.loads(mt5crs_phase(gateway, "show", "--json").output)
    assert (shown["profile"], shown["enforced"], shown["obstacle"]) == (SHADOW, True, "")

    done = promote(gateway, "--override", "--days", "2")
    assert done.exit_code == 0, done.output
    assert f"phase 1, {MICRO} (micro), for 2.0 days more" in done.output
    filled = trader.order(volume=0.01, expected_profit=1.0)
    assert isinstance(filled, OrderResult)
    assert filled.outcome == "FILLED"
    beyond = trader.order(volume=0.05, expected_profit=1.0)
    assert isinstance(beyond, Error)
    assert (beyond.code, beyond.field, beyond.final) == ("LIMIT", "trade_size", True)
    assert gateway.metric(f'mt5crs_gateway_phase{{magic="{MAGIC}"}}') in (0.0, 1.0)  # a second behind at most

    gateway.restart()
    assert json.loads(mt5crs_phase(gateway, "show", "--json").output)["profile"] == MICRO
    down = mt5crs_phase(gateway, "demote", "--to", SHADOW, "--reason", "drill is over")
    assert down.exit_code == 0, down.output
    acts = json.loads(mt5crs_phase(gateway, "history", "--json").output)
    assert [act["act"] for act in acts] == ["demoted", "crash", "override", "set"]
    assert (acts[2]["by"], acts[2]["reason"]) == ("alice", "drill")


def test_only_reducing_by_hand(gateway: Running) -> None:
    assert mt5crs_phase(gateway, "reduce", "--reason", "news at 14:30").exit_code == 0
    told = mt5crs_phase(
        gateway, "promote", "--by", "alice", "--key", str(key("alice")), "--reason", "why not"
    )
    assert f"magic {MAGIC} is REDUCING: news at 14:30" in told.output
    assert told.exit_code == 1
    lifted = mt5crs_phase(gateway, "activate", "--reason", "news are over")
    assert "trading is ACTIVE" in lifted.output


def test_who_trades_may_look_and_change_nothing(gateway: Running) -> None:
    trader = gateway.client("strategy")
    assert isinstance(trader.ask(PhaseQuery), PhaseState)
    answer = trader.ask(PhaseDemote, profile=SHADOW, reason="drill")
    assert isinstance(answer, Error)
    assert answer.code == "FORBIDDEN"
    assert isinstance(gateway.client("other").ask(PhaseQuery, magic=MAGIC), Error)


def test_wrong_usage(gateway: Running) -> None:
    for wrong in (("check", "--to", "live_huge"), ("demote", "--to", "live_huge", "--reason", "drill")):
        done = mt5crs_phase(gateway, *wrong)
        assert done.exit_code == 2, done.output
        assert "there is no profile 'live_huge'" in done.output


def test_a_gateway_without_phases_says_so_and_takes_orders_of_any_client(tmp_path: Path) -> None:
    with running(tmp_path) as plain:
        assert "no phases here" in mt5crs_phase(plain, "show").output
        assert "this gateway uses no phases" in mt5crs_phase(plain, "check").output
        trader = plain.client("strategy")
        trader.lease()
        assert "expected_profit" not in trader.terms()
        order = trader.ask(OrderSend, **trader.terms(volume=1.0))
        assert order.outcome == "FILLED"
        with sqlite3.connect(plain.directory / "state" / "control.db") as db:
            assert db.execute("SELECT COUNT(*) FROM phases").fetchone() == (0,)


def state(**changes: object) -> PhaseState:
    facts = {"days_without_critical": 8, "days_without_crash": 8, "uptime_percent": 99, "fills": 30}
    facts |= {"reject_percent": 1, "worst_day": -1.0, "latency_p95_ms": 100}
    usual = {
        "v": 1, "id": "p", "magic": 7, "account": "1@S", "enforced": True, "profile": MICRO, "phase": 1,
        "trading": "ACTIVE", "why": "", "serial": 3, "expires_in_ms": 1, "obstacle": "", "acts": [],
        "facts": [PhaseFact(name=name, value=value, source="control.db") for name, value in facts.items()],
    }  # fmt: skip
    return PhaseState(**{**usual, **changes})  # type: ignore[arg-type]


def test_what_holds_and_the_first_that_does_not() -> None:
    verdict = judge(state(), named(CONSTRAINED))
    assert verdict.holds
    assert [finding.fact for finding in verdict.findings] == [each.fact for each in named(MICRO).exit]
    unknown = [
        fact if fact.name != "fills" else PhaseFact(name="fills", value=None, source="control.db")
        for fact in state().facts
    ]
    verdict = judge(state(facts=unknown), named(CONSTRAINED))
    assert (verdict.holds, verdict.obstacle) == (False, f"fills is unknown, {MICRO} is left at >= 20")
    assert not judge(state(facts=[]), named(CONSTRAINED)).holds
    assert judge(state(facts=[]), named(MICRO)).holds  # a renewal
    assert "more than one phase above" in judge(state(), named("live_scaled_atomic_v1")).obstacle
    assert "use `mt5crs phase demote`" in judge(state(), named(SHADOW)).obstacle
