"""What the tool says: one JSON object, or sentences and tables."""

from __future__ import annotations

import contextlib
import json
import os
from typing import Any

from mt5crs_release.desired.name import plain
from mt5crs_release.errors import ReleaseError


def print_error(error: ReleaseError, *, as_json: bool, instance: str = "") -> None:
    """Say why it ended, as whoever called can read it."""
    if as_json:
        answer = {"changed": False, **error.as_json()}
        write(1, json_text(without_instance(answer) if instance else answer))
    lines = [f"mt5crs-release: {error.message}"]
    lines += [f"    {line}" for line in error.details.get("journal", [])]
    if error.remedy:
        lines.append(f"What to do: {error.remedy}.")
    write(2, "\n".join(lines))


def write(descriptor: int, text: str) -> None:
    """Write a line without Python's buffer: whoever asked may be gone, and what was done stands."""
    content = text.encode(errors="replace") + b"\n"
    with contextlib.suppress(OSError):
        while content:
            content = content[os.write(descriptor, content) :]


def json_text(answer: dict[str, Any]) -> str:
    """One line of JSON."""
    return json.dumps(answer, sort_keys=True)


def without_instance(answer: dict[str, Any]) -> dict[str, Any]:
    """The answer with the names of services as who asked for an instance used them."""
    told = dict(answer)
    if "service" in told:
        told["service"] = plain(told["service"])
    if "services" in told:
        told["services"] = {plain(name): without_instance(said) for name, said in told["services"].items()}
    if "unread" in told:
        told["unread"] = [plain(name) for name in told["unread"]]
    return told


def sentences(command: str, answer: dict[str, Any]) -> str:
    """What a person wants to know of an answer; `command`: what was asked."""
    if command == "status":
        return _status_table(answer)
    if command == "list":
        lines = [_generation_line(entry) for entry in answer["generations"]]
        return "\n".join(lines) or "no generations"
    if command == "prune":
        removed = answer["removed"]
        names = [*(name for names in removed["generations"].values() for name in names)]
        names += [*removed["runtimes"], *removed["bundles"], *removed["store"]]
        return f"removed {', '.join(names)}" if names else "nothing to remove"
    if command == "recover":
        return (
            "\n".join(f"{name}: {entry['reason']}" for name, entry in answer["services"].items())
            or "no services"
        )
    if command == "undo":
        told = [sentences("rollback", entry) for entry in answer["services"].values()]
        return "\n".join(told) or f"nothing of deployment {answer['deployment']} runs on this host"
    if command == "deployment":
        return _deployment_text(answer)
    if command == "check":
        healthy = (f"{name} {entry['generation']}: healthy" for name, entry in answer["services"].items())
        return "\n".join(healthy) or "no services"
    if command == "verify":
        return _verified_text(answer)
    if command == "audit-log":
        return json.dumps(answer, indent=2, sort_keys=True)
    if command == "intact":
        same = [f"{what}: as it was built" for what in answer["looked_at"]]
        return (
            "\n".join([*same, *(f"{what}: no record to judge it by" for what in answer["unknown"])])
            or "nothing to look at"
        )
    if command == "shadow" and not answer["changed"]:
        return json.dumps(answer["shadow"], indent=2, sort_keys=True)
    if command in ("store", "fetch"):
        return json.dumps(answer, indent=2, sort_keys=True)
    if command == "install-units":
        return f"installed {', '.join(answer['units'])}" if answer["changed"] else "unchanged"
    change = "" if answer["changed"] else "unchanged: "
    seconds = f" ({answer['seconds']:.1f} s)" if "seconds" in answer else ""
    beside = f"; in standby: {answer['standby']['reason']}" if answer.get("standby") else ""
    beside += f"; in the shadow: {answer['shadow']['reason']}" if answer.get("shadow") else ""
    return f"{answer['service']} {answer['generation']}: {change}{answer['reason']}{beside}{seconds}"


def _verified_text(answer: dict[str, Any]) -> str:
    if answer["kind"] == "provenance":
        return f"{answer['file']}: signature good; it names {', '.join(answer['subjects'])}"
    if answer["kind"] == "file":
        return f"{answer['file']}: every byte is as {answer['provenance']} says, whose signature is good"
    said = (
        f"{answer['kind']} {answer['version']}, content {answer['content'][:12]}, commit {answer['commit']}"
    )
    return f"{answer['file']}: signature good, every byte is as it was built; {said}"


def _status_table(answer: dict[str, Any]) -> str:
    lines = []
    for name, entry in answer["services"].items():
        units = ", ".join(f"{unit} {state}" for unit, state in entry["units"].items())
        pending = f"; reverts in {entry['deadline_in_s']:g} s" if entry["deadline_in_s"] is not None else ""
        changed = entry["intact"] is False and entry["current"] is not None
        damage = f"; NOT AS STAGED: {', '.join(entry['problems'])}; deploy again" if changed else ""
        if entry["drop_ins"]:
            damage += f"; DROP-INS OF OTHERS: {', '.join(entry['drop_ins'])}"
        access = entry["access"]
        if access is not None and not access["own"]:
            damage += f"; access list {access['serial']} is not the one it brought"
        beside = f"; {entry['standby']} stands by" if entry["standby"] else ""
        left = entry["left"]
        went = f"; {left['generation']} was left: {left['reason']}" if left else ""
        what = f"{entry['current'] or 'nothing'} {entry['state']}{pending}{beside}{damage}{went}"
        none = "units not known" if name in answer["unread"] else "no units"
        lines.append(f"{name}: {what}; {units or none}")
    lines += [
        f"instance {name}: see `mt5crs-release status --instance {name}`"
        for name in answer["instances"]
        if name != answer["instance"]
    ]
    if set(answer["unread"]) & set(answer["services"]):
        lines.append("only root may read which units there are and whether anything was changed: use sudo")
    return "\n".join(lines) or "no services"


def _deployment_text(answer: dict[str, Any]) -> str:
    if "deployments" not in answer:
        return json.dumps(answer, indent=2, sort_keys=True)
    lines = [
        f"{str(entry['id'])[:8]}  {entry['started']}  {entry['action']}  {entry['outcome']}  "
        f"by {entry['who']}  {entry['sentence'] or ''}".rstrip()
        for entry in answer["deployments"]
    ]
    holder = answer["holder"]
    if holder is not None:
        lines.insert(
            0, f"deploying now: {holder['who']} on {holder['controller']}, phase '{holder['phase']}'"
        )
    return "\n".join(lines) or "no deployments"


def _generation_line(entry: dict[str, Any]) -> str:
    mark = "*" if entry["current"] else " "
    can = "  can be rolled back to" if entry["rollback"] else ""
    why = f"  left last time: {entry['reason']}" if entry["reason"] else ""
    version = entry["version"] or "configuration"
    return f"{mark} {entry['generation']}  {version}  {entry['state']}  staged {entry['staged_at']}{can}{why}"
