"""What is asked of the real package, and of our fake: every bound of an argument, from both sides.

`initialize` comes last: it is the only one that changes what others answer.
"""

_SPAN = "datetime.datetime(2024, 1, 1, tzinfo=UTC), datetime.datetime(2024, 2, 1, tzinfo=UTC)"
_INTEGERS = ("action", "magic", "order", "position", "position_by", "deviation", "type", "type_filling")
_INTEGERS += ("type_time", "expiration")
_FLOATS = ("volume", "price", "stoplimit", "sl", "tp")
_TEXTS = ("symbol", "comment")
_EDGES = ("-1", "0", "2**31", "2**32 - 1", "2**32", "2**63 - 1", "2**63", "2**64 - 1", "2**64")
_PATH = r"'Z:\\nowhere\\terminal64.exe'"

QUERIES = [
    "last_error()",
    "account_info()",
    "account_info(1)",
    "terminal_info()",
    "positions_get()",
    "positions_get(**{})",
    "positions_get('EURUSD')",
    "positions_get(nonsense=1)",
    "orders_get()",
    "orders_get('EURUSD')",
    "positions_total()",
    "positions_total(1)",
    "orders_total()",
    "orders_total(1)",
    "symbols_get()",
    *(
        f"{function}({arguments})"
        for function in ("symbol_info", "symbol_info_tick")
        for arguments in (
            "",
            "1",
            "'EURUSD'",
            "'E' * 29",
            "'E' * 30",
            "'Volatility 75 Index'",
            "'£'",
            "'😀' * 14",
            "'😀' * 15",
            "''",
            "symbol='EURUSD'",
        )
    ),
    "symbol_select('EURUSD', True)",
    "symbol_select('E' * 29, True)",
    "symbol_select('E' * 30, True)",
    "symbol_select('EURUSD', enable=True)",
    *(
        f"{function}({arguments})"
        for function in ("history_deals_total", "history_orders_total")
        for arguments in ("", _SPAN, "1704067200, 1704153600", "'a', 'b'", "0, 2**31 - 1", "0, 2**31")
    ),
    *(
        f"{function}({arguments})"
        for function in ("history_deals_get", "history_orders_get")
        for arguments in (
            "",
            _SPAN,
            "1704067200, 1704153600",
            "datetime.datetime(2024, 1, 1, tzinfo=UTC)",
            "'a', 'b'",
            "0, 2**31 - 1",
            "0, 2**31",
            "0, 2**32 - 1",
            "0, 2**32",
            "0, 2**40",
            "-1, 1",
            "datetime.datetime(1970, 1, 1, tzinfo=UTC), datetime.datetime(9999, 1, 1, tzinfo=UTC)",
            "date_from=1, date_to=2",
            "position=1",
            "position=1.0",
            "position=-1",
            "position=2**64",
            "nonsense=1",
        )
    ),
]
REQUESTS = [
    "",
    "None",
    "[]",
    "{}",
    "REQUEST",
    "request=REQUEST",
    "**REQUEST",
    "{**REQUEST, 'nonsense': 1}",
    "{'action': 8, 'magic': 7, 'order': 1}",
    *(f"{{**REQUEST, '{key}': {edge}}}" for key in _INTEGERS for edge in _EDGES),
    *(
        f"{{**REQUEST, '{key}': {value}}}"
        for key in _INTEGERS
        for value in ("1.0", "'1'", "None", "True", "numpy.int64(1)")
    ),
    *(
        f"{{**REQUEST, '{key}': {value}}}"
        for key in _FLOATS
        for value in (
            "0.0",
            "-1.0",
            "nan",
            "inf",
            "0",
            "1",
            "'1'",
            "None",
            "numpy.float64(1)",
            "numpy.float32(1)",
        )
    ),
    *(
        f"{{**REQUEST, '{key}': {value}}}"
        for key in _TEXTS
        for value in ("''", "'x' * 29", "'x' * 30", "'£' * 29", "'😀' * 14", "'😀' * 15", "1", "None", "b'x'")
    ),
    *(f"{{**REQUEST, '{key}': {value}}}" for key in _TEXTS for value in (r"'\ud800'", r"'a\x00b'")),
]
STARTS = [
    f"initialize({arguments})"
    for arguments in (
        "1",
        f"{_PATH}, login='x'",
        f"{_PATH}, login=-1",
        f"{_PATH}, login=2**64",
        f"{_PATH}, timeout=1.5",
        f"{_PATH}, timeout=-1",
        f"{_PATH}, timeout=2**32",
        f"{_PATH}, password=1",
        f"{_PATH}, server=1",
        r"'Z:\\' + 'n' * 300",
        _PATH,
        f"{_PATH}, login=5000001, password='p', server='s', timeout=1000, portable=True, nonsense=1",
        r"'Z:\\nö\\terminal64.exe'",
    )
]
CASES = [
    *QUERIES,
    *(f"order_send({request})" for request in REQUESTS),
    *(f"order_check({request})" for request in REQUESTS if request.startswith(("{", "REQUEST"))),
    *STARTS,
    "shutdown()",
]
