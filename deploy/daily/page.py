"""The report of a day as one HTML page without outside resources, and as text. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jinja2

from deploy.fleet.rendering import TEMPLATES

_WIDTH, _HEIGHT = 720.0, 160.0


def html(report: Mapping[str, Any]) -> str:
    """The page. Every text of others is shown as text."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    plots = {one["host"]: _plots(one["money"].get("value")) for one in report["gateways"]}
    latency = {host: _bars(_shares(of)) for host, of in (report["latency"].get("value") or {}).items()}
    template = environment.get_template("report/daily.html.j2")
    return template.render(report=report, plots=plots, latency=latency, width=_WIDTH, height=_HEIGHT)


def _plots(money: Mapping[str, Any] | None) -> dict[str, Any]:
    if money is None:
        return {}
    curve = [(float(at), float(value)) for at, value in money["curve"]]
    high, fallen = curve[0][1], []
    for at, value in curve:
        high = max(high, value)
        fallen.append((at, value - high))
    hours = {f"{hour:02}": float(money["by_hour"].get(str(hour), 0)) for hour in range(24)}
    return {
        "balance": _line(curve),
        "drawdown": _line(fallen),
        "symbols": _bars({name: float(value) for name, value in money["by_symbol"].items()}),
        "hours": _bars(hours if money["by_hour"] else {}),
    }


def _line(points: Sequence[tuple[float, float]]) -> dict[str, Any] | None:
    """Points of an SVG polyline with the lowest and highest value; None when there is nothing to draw."""
    if len(points) < 2:
        return None
    (first, last), values = (points[0][0], points[-1][0]), [value for _, value in points]
    low, high = min(values), max(values)
    across, up = (last - first) or 1.0, (high - low) or 1.0
    drawn = (
        f"{(at - first) / across * _WIDTH:.1f},{_HEIGHT - (value - low) / up * _HEIGHT:.1f}"
        for at, value in points
    )
    return {"points": " ".join(drawn), "low": f"{low:.2f}", "high": f"{high:.2f}"}


def _bars(values: Mapping[str, float]) -> list[dict[str, Any]]:
    """Bars from a common zero line; none when there is nothing to draw."""
    if not values:
        return []
    high, low = max(0.0, *values.values()), min(0.0, *values.values())
    scale, step = _HEIGHT / ((high - low) or 1.0), _WIDTH / len(values)
    return [
        {
            "name": name,
            "value": f"{value:.2f}",
            "x": round(number * step, 1),
            "width": round(step * 0.8, 1),
            "y": round((high - max(value, 0.0)) * scale, 1),
            "height": round(abs(value) * scale, 1),
            "loss": value < 0,
        }
        for number, (name, value) in enumerate(values.items())
    ]


def _shares(of: Mapping[str, Any]) -> dict[str, float]:
    """How many calls took how long: each bucket without the ones below it."""
    edges = sorted(of.get("buckets", {}).items(), key=lambda one: float(one[0].replace("+Inf", "inf")))
    found, below = {}, 0.0
    for edge, number in edges:
        if number - below > 0:
            found[f"≤ {edge} s"] = number - below
        below = max(below, number)
    return found


def text(report: Mapping[str, Any]) -> str:
    """The same in words, for a terminal or a mail."""
    lines = [
        f"{report['environment']}, {report['date']}{'' if report['whole'] else ' (the day is not over)'}"
    ]
    for one in report["mode"]:
        lines.append(
            f"{one['host']}: {one['magic']} trades {one['symbol']} through {one['gateway']}, account phase "
            f"{one['account_phase']}, orders: {one['orders']}"
        )
    for gateway in report["gateways"]:
        lines += ["", gateway["host"], *_money(gateway["money"]), *_orders(gateway["orders"])]
        lines += _listed("halts", gateway["halts"], "{act} of {magic} by {client}: {reason}")
    lines += ["", *_latency(report["latency"])]
    lines += _listed("alerts", report["alerts"], "{alertname} ({severity}) of {host}, {minutes} min")
    lines += _listed(
        "deployments", report["deployments"], "{started} {action} by {who}: {outcome}. {sentence}"
    )
    lines.append("anomalies: " + ("; ".join(one["text"] for one in report["anomalies"]) or "none found"))
    return "\n".join(lines)


def _money(section: Mapping[str, Any]) -> list[str]:
    if "no_data" in section:
        return [f"  money: no data: {section['no_data']}"]
    of = section["value"]
    rate = "no trades" if of["win_rate"] is None else f"{of['win_rate']:.1%} won"
    factor = "none" if of["profit_factor"] is None else f"{of['profit_factor']:.2f}"
    books = of["books"]
    said = f"{books['broker_says']} at the broker: {'equal' if books['equal'] else 'DIFFERENT'}"
    money = f"{of['opening']} → {of['closing']} {of['currency']}, result {of['result']}"
    return [
        f"  account {of['login']}: {money}, deposits and withdrawals {of['deposits']}",
        f"  {of['trades']} trades, {rate}, profit factor {factor}, drawdown {of['drawdown']}",
        "  expected profit: not recorded",
        f"  books: all deals add up to {books['deals_add_up_to']}, {said}",
    ]


def _orders(section: Mapping[str, Any]) -> list[str]:
    if "no_data" in section:
        return [f"  orders: no data: {section['no_data']}"]
    told = [
        f"{one['count']} {one['kind']} {one['result']}{' (' + one['reason'] + ')' if one['reason'] else ''}"
        for one in section["value"]
    ]
    return [f"  orders: {'; '.join(told) or 'none was submitted'}"]


def _latency(section: Mapping[str, Any]) -> list[str]:
    if "no_data" in section:
        return [f"latency: no data: {section['no_data']}"]
    if not section["value"]:
        return ["latency: no data: no order call was measured"]
    return [
        f"latency of {host}: "
        + ", ".join(
            f"{name.upper()} {of[name] * 1000:.0f} ms" for name in ("p50", "p95", "p99") if name in of
        )
        for host, of in section["value"].items()
    ]


def _listed(name: str, section: Mapping[str, Any], form: str) -> list[str]:
    if "no_data" in section:
        return [f"{name}: no data: {section['no_data']}"]
    return [f"{name}: " + ("; ".join(form.format(**one) for one in section["value"]) or "none")]
