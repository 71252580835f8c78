"""The strict fake, and the numbers our backend uses, against published type stubs of the MetaTrader5 package.

The stubs (`metatrader5-stubs`) describe a part of the package; what they lack is listed in NOT_IN_THE_STUBS
and rests on the official documentation alone.
"""

import ast
import inspect
from importlib.metadata import distribution
from pathlib import Path
from typing import Any, get_args

import pytest

from mt5crs.broker import mt5, retcodes
from mt5crs.protocol.fields import DealEntry, MarginMode, OrderState, OrderType, TradeMode
from tests.unit.broker import fake_metatrader5 as fake

NOT_IN_THE_STUBS = {
    "account_info",
    "history_deals_get",
    "history_orders_get",
    "order_check",
    "symbol_info",
    "symbols_get",
}
"""Functions that the backend calls and the stubs do not describe, and with them AccountInfo, TradeDeal,
SymbolInfo and OrderCheckResult.
"""
TUPLES: dict[str, Any] = {
    "OrderSendResult": fake.OrderSendResult,
    "TradePosition": fake.TradePosition,
    "TradeOrder": fake.TradeOrder,
    "TerminalInfo": fake.TerminalInfo,
    "Tick": fake.TickTuple,
}


def stubs() -> ast.Module:
    path = Path(str(distribution("metatrader5-stubs").locate_file("MetaTrader5-stubs/__init__.pyi")))
    return ast.parse(path.read_text(encoding="utf-8"))


def fields_of(node: ast.ClassDef) -> list[str]:
    return [
        each.target.id
        for each in node.body
        if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)
    ]


STUBS = stubs()
FUNCTIONS = {node.name: node for node in STUBS.body if isinstance(node, ast.FunctionDef)}
FIELDS = {node.name: fields_of(node) for node in STUBS.body if isinstance(node, ast.ClassDef)}
NUMBERS = {
    node.target.id: ast.literal_eval(node.value)
    for node in STUBS.body
    if isinstance(node, ast.AnnAssign)
    and isinstance(node.target, ast.Name)
    and isinstance(node.value, (ast.Constant, ast.UnaryOp))
}


def functions_of_the_fake() -> set[str]:
    return {name for name in vars(fake.FakeMetaTrader5) if not name.startswith("_")}


def test_what_the_stubs_do_not_cover_is_known() -> None:
    assert functions_of_the_fake() - set(FUNCTIONS) == NOT_IN_THE_STUBS


@pytest.mark.parametrize("name", sorted(TUPLES))
def test_fields_come_in_the_order_of_the_stubs(name: str) -> None:
    assert list(TUPLES[name]._fields) == FIELDS[name]


def test_keys_of_a_request() -> None:
    assert set(FIELDS["TradeRequest"]) == fake.KEYS


@pytest.mark.parametrize("name", sorted(set(FUNCTIONS) & functions_of_the_fake()))
def test_the_fake_takes_nothing_that_the_stubs_do_not_know(name: str) -> None:
    """Fewer parameters are fine: the fake is stricter on purpose."""
    theirs = FUNCTIONS[name].args
    positional = [each.arg for each in (*theirs.posonlyargs, *theirs.args)]
    keywords = {*positional, *(each.arg for each in theirs.kwonlyargs)}
    ours = list(inspect.signature(getattr(fake.FakeMetaTrader5, name)).parameters.values())[1:]
    assert {each.name for each in ours if each.kind is each.KEYWORD_ONLY} <= keywords
    placed = [each for each in ours if each.kind is each.POSITIONAL_OR_KEYWORD]
    assert len(placed) <= len(positional)


@pytest.mark.parametrize(
    ("prefix", "names"),
    [
        ("ORDER_TYPE_", get_args(OrderType)),
        ("ORDER_STATE_", get_args(OrderState)),
        ("DEAL_ENTRY_", get_args(DealEntry)),
        ("ACCOUNT_TRADE_MODE_", get_args(TradeMode)),
    ],
)
def test_enumerations_have_the_numbers_of_the_package(prefix: str, names: tuple[str, ...]) -> None:
    assert {name: NUMBERS[prefix + name] for name in names} == {name: n for n, name in enumerate(names)}


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
    assert NUMBERS["DEAL_TYPE_BALANCE"] == 2


def test_return_codes() -> None:
    """Every code of the package has words; our extra one (hedging prohibited) is newer than the stubs."""
    theirs = {value for name, value in NUMBERS.items() if name.startswith("TRADE_RETCODE_")}
    assert set(retcodes.NAMES) - theirs == {10046}
    assert theirs <= set(retcodes.NAMES)
    assert NUMBERS["TRADE_RETCODE_DONE"] == retcodes.DONE
    assert NUMBERS["TRADE_RETCODE_DONE_PARTIAL"] == retcodes.DONE_PARTIAL
    assert NUMBERS["TRADE_RETCODE_PLACED"] == retcodes.PLACED
