"""Rules of our own for Python: what costs money here, and what no general program knows.

Each rule is a function from a parsed file to places; `RULES` says what it is worth. None runs what it reads.
"""

from __future__ import annotations

import ast
import codecs
import io
import re
import tokenize
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from mt5crs.review.model import Finding, Part, Severity

SOURCE: Final = "rules"
_JOURNALED: Final = (
    *("src/mt5crs/gateway/order_manager.py", "src/mt5crs/gateway/terminal.py", "src/mt5crs/broker/"),
    "src/mt5crs/develop/practice.py",  # its broker is simulated, in this process, and ends with it
)
_READINGS: Final = frozenset(
    (
        *("positions_get", "orders_get", "history_deals_get", "history_orders_get", "symbols_get"),
        *("account_info", "books", "deals", "closed_orders", "deals_of_position", "document_of"),
    )
)
"""Calls whose answer may be unknown, which is not the same as empty."""
_SECRET: Final = re.compile(r"(?i)(?:^|_)(?:secret|secret_key|password|passwd|token|api_key|private_key)$")
_TOLD: Final = frozenset(("debug", "info", "warning", "error", "critical", "exception", "print", "echo"))


class Rule(NamedTuple):
    """What a rule is called, what breaking it is worth, and where it applies (beginnings of paths)."""

    id: str
    severity: Severity
    part: Part
    message: str
    look: Callable[[ast.Module, str], Iterator[ast.AST]]
    inside: tuple[str, ...] = ("src/", "deploy/", "plugins/")
    outside: tuple[str, ...] = ()


def check(path: str, text: str) -> list[Finding]:
    """Findings in one Python file."""
    encoding = _encoding(text)
    if encoding != "utf-8":
        message = f"Python would read it as {encoding}, and not what is reviewed; make it UTF-8"
        return [_finding("MT5CRS000", "P0", "quality", path, 1, message, text)]
    try:
        module = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError) as error:
        line = getattr(error, "lineno", None) or 0
        message = f"it is no Python: {getattr(error, 'msg', error)}; nothing else in it could be checked"
        return [_finding("MT5CRS000", "P0", "quality", path, line, message, text)]
    found = []
    for rule in RULES:
        if path.startswith(rule.inside) and not path.startswith(rule.outside or ("\0",)):
            for node in rule.look(module, text):
                line = getattr(node, "lineno", 0)
                found.append(_finding(rule.id, rule.severity, rule.part, path, line, rule.message, text))
    return found


def _encoding(text: str) -> str:
    """What Python takes the file for: a comment at its beginning says so."""
    try:
        said = tokenize.detect_encoding(io.BytesIO(text.encode()).readline)[0].removesuffix("-sig")
        return codecs.lookup(said).name
    except (SyntaxError, UnicodeError, LookupError):
        return "an encoding that it does not know"


def _finding(
    rule: str, severity: Severity, part: Part, path: str, line: int, message: str, text: str
) -> Finding:
    lines = text.splitlines()
    quote = lines[line - 1].strip() if 0 < line <= len(lines) else ""
    return Finding(
        rule=rule,
        severity=severity,
        part=part,
        path=path,
        line=line,
        message=message,
        source=SOURCE,
        quote=quote,
    )


def _name(node: ast.AST) -> str:
    """The last word of a name, an attribute or what is called."""
    if isinstance(node, ast.Call):
        return _name(node.func)
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _calls(tree: ast.AST) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def _sends_order(call: ast.Call) -> bool:
    if _name(call) == "order_send":
        return True
    function = call.func
    if not isinstance(function, ast.Attribute) or function.attr != "send":
        return False
    receiver = _name(function.value)
    return receiver.strip("_") in ("broker", "backend", "terminal", "mt5")


def _order_sent(module: ast.Module, text: str) -> Iterator[ast.AST]:  # noqa: ARG001
    return (call for call in _calls(module) if _sends_order(call))


def _order_in_a_loop(module: ast.Module, text: str) -> Iterator[ast.AST]:  # noqa: ARG001
    for node in ast.walk(module):
        if isinstance(node, (ast.For, ast.While)):
            yield from (call for call in _calls(node) if _sends_order(call))


def _reads(node: ast.AST) -> bool:
    """Whether a call reads what may be unknown; `json.loads` counts, whatever it is called on."""
    return isinstance(node, ast.Call) and (_name(node) in _READINGS or _name(node) == "loads")


def _unknown_as_empty(module: ast.Module, text: str) -> Iterator[ast.AST]:  # noqa: ARG001
    for node in ast.walk(module):
        if isinstance(node, ast.BoolOp) and isinstance(node.op, ast.Or) and _reads(node.values[0]):
            last = node.values[-1]
            if isinstance(last, (ast.Tuple, ast.List, ast.Dict, ast.Set, ast.Constant)) or (
                isinstance(last, ast.Call) and _name(last) in ("list", "tuple", "dict", "set")
            ):
                yield node
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not) and _reads(node.operand):
            yield node
        elif isinstance(node, ast.Call) and _name(node) in ("len", "list", "tuple", "sorted", "bool"):
            yield from (each for each in node.args[:1] if _may_be_none(each))
        elif isinstance(node, (ast.For, ast.comprehension)) and _may_be_none(node.iter):
            yield node.iter


def _may_be_none(node: ast.AST) -> bool:
    """Whether a call is one of MetaTrader 5's own, which answer None for an error."""
    return _reads(node) and _name(node).endswith("_get")


def _swallowed(module: ast.Module, text: str) -> Iterator[ast.AST]:  # noqa: ARG001
    for node in ast.walk(module):
        if isinstance(node, ast.ExceptHandler):
            broad = node.type is None or _name(node.type) in ("Exception", "BaseException")
            if broad and all(isinstance(each, (ast.Pass, ast.Continue)) for each in node.body):
                yield node


def _told_secret(module: ast.Module, text: str) -> Iterator[ast.AST]:  # noqa: ARG001
    for call in _calls(module):
        if _name(call) in _TOLD:
            shown = [word.value for word in call.keywords if word.arg] + list(call.args)
            if any(_SECRET.search(_name(node)) for each in shown for node in _shown_names(each)):
                yield call


def _shown_names(node: ast.AST) -> Iterator[ast.AST]:
    """Names whose value is shown: by themselves, or in an f-string; not what a function makes of them."""
    if isinstance(node, (ast.Name, ast.Attribute)):
        yield node
    elif isinstance(node, ast.JoinedStr):
        for each in node.values:
            if isinstance(each, ast.FormattedValue):
                yield from _shown_names(each.value)


_RUNNERS: Final = (("os", "system"), ("pickle", "loads"), ("marshal", "loads"))


def _runs_text(module: ast.Module, text: str) -> Iterator[ast.AST]:  # noqa: ARG001
    for call in _calls(module):
        function = call.func
        named = isinstance(function, ast.Name) and function.id in ("eval", "exec")
        of_a_module = (
            isinstance(function, ast.Attribute) and (_name(function.value), function.attr) in _RUNNERS
        )
        if (
            named
            or of_a_module
            or any(word.arg == "shell" and _is(word.value, True) for word in call.keywords)
        ):
            yield call


def _is(node: ast.AST, value: object) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


def _unverified(module: ast.Module, text: str) -> Iterator[ast.AST]:  # noqa: ARG001
    for node in ast.walk(module):
        if isinstance(node, ast.keyword) and node.arg == "verify" and _is(node.value, False):
            yield node.value
        elif isinstance(node, ast.Attribute) and node.attr in ("CERT_NONE", "_create_unverified_context"):
            yield node


def _open_curve(module: ast.Module, text: str) -> Iterator[ast.AST]:
    """A server with CURVE and without a ZAP domain lets every key in."""
    if "zap_domain" in text.lower():
        return
    for node in ast.walk(module):
        stored = isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
        if (stored and _name(node) == "curve_server") or _name(node) == "CURVE_SERVER":
            yield node


def _retries_in_adapter(module: ast.Module, text: str) -> Iterator[ast.AST]:  # noqa: ARG001
    for node in ast.walk(module):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            for decorator in node.decorator_list:
                if "retry" in _name(decorator).lower() and any(_sends_order(call) for call in _calls(node)):
                    yield node


RULES: Final = (
    Rule(
        "MT5CRS001",
        "P0",
        "zero_trust",
        "an order is sent outside of the journal: after a crash nobody knows of it; use the order manager",
        _order_sent,
        inside=("src/", "deploy/", "plugins/", "lab/"),
        outside=_JOURNALED,
    ),
    Rule(
        "MT5CRS002",
        "P0",
        "zero_trust",
        "an answer that may be unknown is taken for empty; tell the two apart",
        _unknown_as_empty,
    ),
    Rule(
        "MT5CRS003",
        "P0",
        "zero_trust",
        "an order is sent in a loop: a lost answer would send it twice; look for it by its id first",
        _order_in_a_loop,
    ),
    Rule(
        "MT5CRS004",
        "P1",
        "forensics",
        "every error is swallowed without a trace; name the errors, or log this one",
        _swallowed,
    ),
    Rule(
        "MT5CRS005",
        "P0",
        "forensics",
        "a secret is logged or shown; leave its value out",
        _told_secret,
    ),
    Rule(
        "MT5CRS006",
        "P1",
        "security",
        "text is run as code or by a shell; call the program with a list of words",
        _runs_text,
        outside=("src/mt5crs_release/compiled.py",),  # compares what root alone can have written
    ),
    Rule(
        "MT5CRS007",
        "P0",
        "security",
        "the other side's certificate is not checked; check it",
        _unverified,
    ),
    Rule(
        "MT5CRS008",
        "P0",
        "zero_trust",
        "a CURVE server without a ZAP domain accepts every key; set zap_domain before it binds",
        _open_curve,
        outside=("src/mt5crs/checks/audit.py",),  # tries on loopback what a wrong server key does
    ),
    Rule(
        "MT5CRS009",
        "P0",
        "zero_trust",
        "a function that sends an order is retried by its decorator: the order can be doubled",
        _retries_in_adapter,
    ),
)
