"""What the real MetaTrader5 package has said of itself, against the fake and against what the backend sends.

`recorded/metatrader5.json` was asked of the package under Wine; `make windows-contract` looks whether it
still says so.
"""

import inspect
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import pytest

from mt5crs.broker import mt5, retcodes
from mt5crs.broker.sim.backend import Profile, SimulatedBroker
from mt5crs.protocol.fields import DealEntry, MarginMode, OrderState, OrderType, TradeMode
from tests.unit.broker import fake_metatrader5 as fake
from tests.windows_contract.ask import answer, names
from tests.windows_contract.cases import CASES

RECORDED = fake.RECORDED
NUMBERS: dict[str, int] = RECORDED["constants"]


class NumpyInteger:
    """As numpy's: no int."""


class NumpySingle:
    """As numpy's float32: no float."""


NUMPY = SimpleNamespace(int64=lambda _: NumpyInteger(), float32=lambda _: NumpySingle(), float64=float)


def test_every_case_is_recorded() -> None:
    assert list(RECORDED["answers"]) == CASES


def test_the_fake_answers_as_the_package_does(tmp_path: Path) -> None:
    """Without a terminal, asked in the order in which the package was."""
    broker = SimulatedBroker(tmp_path, Profile(), durable=False)
    package = fake.FakeMetaTrader5(broker, 1, "pw", installed=False)
    known = {**names(package), "numpy": NUMPY}
    answers = {case: answer(package, case, known) for case in CASES}
    broker.close()
    theirs = RECORDED["answers"]
    assert {case: each for case, each in answers.items() if each != theirs[case]} == {}


def test_the_fake_has_only_functions_of_the_package() -> None:
    ours = {
        name for name, _ in inspect.getmembers(fake.FakeMetaTrader5, callable) if not name.startswith("_")
    }
    assert ours <= set(RECORDED["functions"])


def test_what_the_package_consists_of() -> None:
    """Figures of 5.0.6231: what a recording of another version changes is looked at."""
    counted = {name: len(RECORDED[name]) for name in ("constants", "functions", "types")}
    assert counted == {"constants": 223, "functions": 35, "types": 11}


def test_keys_of_a_request() -> None:
    assert set(RECORDED["types"]["TradeRequest"]) == {*fake.INTEGERS, *fake.FLOATS, *fake.TEXTS}


@pytest.mark.parametrize(
    ("prefix", "names_in_order"),
    [
        ("ORDER_TYPE_", get_args(OrderType)),
        ("ORDER_STATE_", get_args(OrderState)),
        ("DEAL_ENTRY_", get_args(DealEntry)),
        ("ACCOUNT_TRADE_MODE_", get_args(TradeMode)),
    ],
)
def test_enumerations_have_the_numbers_of_the_package(prefix: str, names_in_order: tuple[str, ...]) -> None:
    assert {name: NUMBERS[prefix + name] for name in names_in_order} == {
        name: number for number, name in enumerate(names_in_order)
    }


def test_other_numbers() -> None:
    modes = {"NETTING": "RETAIL_NETTING", "EXCHANGE": "EXCHANGE", "HEDGING": "RETAIL_HEDGING"}
    for number, mode in enumerate(get_args(MarginMode)):
        assert NUMBERS["ACCOUNT_MARGIN_MODE_" + modes[mode]] == number
    for filling, number in mt5._FILLINGS.items():
        assert NUMBERS["ORDER_FILLING_" + filling] == number
    for action, number in mt5._ACTIONS.items():
        assert NUMBERS["TRADE_ACTION_" + action] == number
    assert NUMBERS["ORDER_TIME_GTC"] == mt5._GTC
    assert NUMBERS["ORDER_TIME_SPECIFIED"] == mt5._SPECIFIED
    assert NUMBERS["RES_E_INVALID_PARAMS"] == mt5._INVALID_PARAMS
    assert NUMBERS["SYMBOL_TRADE_EXECUTION_EXCHANGE"] == mt5._EXCHANGE
    assert NUMBERS["SYMBOL_TRADE_MODE_FULL"] == 4
    assert NUMBERS["DEAL_TYPE_BALANCE"] == 2


def test_return_codes() -> None:
    """Every code of the package has words; our extra one (hedging prohibited) is newer than the package."""
    theirs = {value for name, value in NUMBERS.items() if name.startswith("TRADE_RETCODE_")}
    assert set(retcodes.NAMES) - theirs == {10046}
    assert theirs <= set(retcodes.NAMES)
    assert NUMBERS["TRADE_RETCODE_DONE"] == retcodes.DONE
    assert NUMBERS["TRADE_RETCODE_DONE_PARTIAL"] == retcodes.DONE_PARTIAL
    assert NUMBERS["TRADE_RETCODE_PLACED"] == retcodes.PLACED
