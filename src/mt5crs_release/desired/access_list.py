"""Access lists: who may connect to a gateway, what each may do, the limits. What a change of one means; pure.

What only takes away (a client, a permission, a magic number or symbol, a tighter limit) holds from the first
moment, and stays when the deployment that brought it fails. What replaces something (a key, an address, magic
numbers, symbols) counts together with what it replaces until it is confirmed. What adds goes when it fails.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

AccessList = dict[str, Any]
"""``clients``, ``limits`` and ``legacy``, each a mapping by name or magic number; never a secret."""

_PROOFS = {"clients": "key", "legacy": "address"}
"""What a client is known by, in either part of the list."""
_HOSTS_OWN = ("magics", "addresses")
_ANYWHERE = "anywhere"
_FORMER = {"clients": "former_key", "legacy": "former_address"}
_ENTRY = {part: {proof: str, "permissions": list, "magics": list} for part, proof in _PROOFS.items()}


@dataclass(frozen=True)
class Changes:
    """What one list does to those of another, a few words each."""

    gains: tuple[str, ...]
    """Who gets in, or may do more."""
    loses: tuple[str, ...]
    """Who is shut out, or may do less."""
    replaced: tuple[str, ...]
    """Names of clients that keep their place under another key or address."""

    def as_json(self) -> dict[str, list[str]]:
        """Return it as ``--json`` output shows it."""
        return {"gains": list(self.gains), "loses": list(self.loses), "replaced": list(self.replaced)}


def empty() -> AccessList:
    """Return the list that lets nobody in."""
    return {"clients": {}, "limits": {}, "legacy": {}}


def parse(text: str | bytes) -> AccessList:
    """Return the list in a clients file, without what it says beside.

    :raises ValueError: it is none; the text says where, and quotes nothing
    """
    try:
        document = json.loads(text)
    except ValueError:
        raise ValueError("is not valid JSON") from None
    if not isinstance(document, dict) or not {"clients", "limits"} <= set(document):
        raise ValueError("must be an object with the keys 'clients' and 'limits'")
    parts: AccessList = {part: document.get(part, {}) for part in empty()}
    for part, entries in parts.items():
        wanted = _ENTRY.get(part, {})
        if not isinstance(entries, dict) or not all(isinstance(entry, dict) for entry in entries.values()):
            raise ValueError(f"must have an object of objects under {part!r}")
        for name, entry in entries.items():
            for key, kind in wanted.items():
                if not isinstance(entry.get(key), kind):
                    raise ValueError(f"lacks {key!r} of {name!r} under {part!r}")
    return parts


def narrowed(now: AccessList, wanted: AccessList) -> AccessList:
    """Return what is left of ``now`` when ``wanted`` comes to nothing: not what that only takes away."""
    left = empty()
    for part in _PROOFS:
        for name, entry in now[part].items():
            if name in wanted[part]:
                then = wanted[part][name]
                left[part][name] = {
                    **{key: value for key, value in entry.items() if key != _FORMER[part]},
                    "permissions": [one for one in entry["permissions"] if one in then["permissions"]],
                    "magics": _kept(entry["magics"], then["magics"]),
                    **_addresses(_kept_addresses, entry, then),
                }
    for magic, limits in now["limits"].items():
        if magic in wanted["limits"]:
            then = wanted["limits"][magic]
            symbols = _kept(limits.get("symbols", []), then.get("symbols", []))
            left["limits"][magic] = {**_tightest(limits, then), "symbols": symbols}
        elif magic in _magics(left) - _magics(wanted):
            left["limits"][magic] = limits
    return left


def both(left: AccessList, wanted: AccessList) -> AccessList:
    """Return what counts until ``wanted`` is confirmed; ``left`` is :func:`narrowed` by it."""
    found = empty()
    for part, proof in _PROOFS.items():
        taken = {entry[proof] for entry in wanted[part].values()}
        for name, entry in wanted[part].items():
            old = left[part].get(name)
            if old is None:
                found[part][name] = dict(entry)
                continue
            found[part][name] = {
                **entry,
                "permissions": _union(old["permissions"], entry["permissions"]),
                # A plain client that trades must have one: some of its messages carry none.
                "magics": _union(old["magics"], entry["magics"]) if part == "clients" else entry["magics"],
                **_addresses(_either_address, old, entry),
            }
            if old[proof] not in taken:
                found[part][name][_FORMER[part]] = old[proof]
    for magic, limits in {**left["limits"], **wanted["limits"]}.items():
        old = left["limits"].get(magic, limits)
        symbols = _union(old.get("symbols", []), limits.get("symbols", []))
        gains = set(symbols) - set(old.get("symbols", []))
        replaces = set(old.get("symbols", [])) - set(limits.get("symbols", []))
        found["limits"][magic] = {
            **_tightest(old, limits),
            "symbols": symbols if replaces or not gains else old.get("symbols", []),
        }
    return found


def carried(now: AccessList, older: AccessList) -> AccessList:
    """Return the list ``now`` for a fleet that goes back to a release whose own list was ``older``.

    Only magic numbers and addresses that were replaced go along: they are the host's own, and no key.
    """
    found: AccessList = {part: dict(entries) for part, entries in now.items()}
    for part in _PROOFS:
        for name, entry in now[part].items():
            then = older[part].get(name, entry)
            own = {what: then[what] for what in _HOSTS_OWN if _replaced(entry.get(what), then.get(what))}
            found[part][name] = {**entry, **own}
    left, back = _magics(now) - _magics(found), _magics(found) - _magics(now)
    found["limits"] = {
        **{magic: limits for magic, limits in now["limits"].items() if magic not in left},
        **{magic: older["limits"][magic] for magic in sorted(back) if magic in older["limits"]},
    }
    return found


def changes(now: AccessList, then: AccessList) -> Changes:
    """Return who gains and who loses by ``then`` in place of ``now``."""
    gains: list[str] = []
    loses: list[str] = []
    replaced: list[str] = []
    for part, proof in _PROOFS.items():
        for name in sorted({*now[part], *then[part]}):
            old, new = now[part].get(name), then[part].get(name)
            if old is None or new is None:
                (gains if old is None else loses).append(f"{name} ({_powers(new or old or {})})")
                continue
            if old[proof] != new[proof]:
                replaced.append(name)
                gains.append(f"{name} with another {proof}")
                loses.append(f"{name} with the {proof} it has now")
            for what, word in (("permissions", "permission"), ("magics", "magic number")):
                gains += [f"{name}: {word} {one}" for one in new[what] if one not in old[what]]
                loses += [f"{name}: {word} {one}" for one in old[what] if one not in new[what]]
            before, after = (set(one.get("addresses") or [_ANYWHERE]) for one in (old, new))
            gains += [f"{name} from {one}" for one in sorted(after - before) if _ANYWHERE not in before]
            loses += [f"{name} from {one}" for one in sorted(before - after) if _ANYWHERE not in after]
    for magic in sorted({*now["limits"], *then["limits"]}):
        old, new = now["limits"].get(magic), then["limits"].get(magic)
        if old is None or new is None:
            (gains if old is None else loses).append(f"magic number {magic}: may be traded")
            continue
        for key in sorted({*old, *new}):
            if old.get(key) != new.get(key):
                tighter = _tighter(key, old.get(key), new.get(key))
                told = f"magic number {magic}: {key} {_shown(old.get(key))} → {_shown(new.get(key))}"
                if tighter is not True:
                    gains.append(told)
                if tighter is not False:
                    loses.append(told)
    return Changes(tuple(gains), tuple(loses), tuple(replaced))


def _addresses(
    combined: Callable[[list[str], list[str]], list[str]], old: Mapping[str, Any], new: Mapping[str, Any]
) -> dict[str, list[str]]:
    """Where the key of a client is accepted from, if either list says it; none means from anywhere."""
    if "addresses" not in old and "addresses" not in new:
        return {}
    return {"addresses": combined(old.get("addresses", []), new.get("addresses", []))}


def _replaced(now: list[Any] | None, then: list[Any] | None) -> bool:
    """Whether something takes the place of something: neither list has all of the other."""
    return bool(set(then or ()) - set(now or ())) and bool(set(now or ()) - set(then or ()))


def _kept_addresses(now: list[str], wanted: list[str]) -> list[str]:
    return _kept(now, wanted) if now and wanted else list(now or wanted)


def _either_address(one: list[str], other: list[str]) -> list[str]:
    return _union(one, other) if one and other else []


def _kept(now: list[Any], wanted: list[Any]) -> list[Any]:
    """What is left of ``now``: less if it only shrinks, all of it if something takes its place."""
    return list(now) if set(wanted) - set(now) else [one for one in now if one in wanted]


def _union(first: Iterable[Any], second: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys([*first, *second]))


def _magics(access: AccessList) -> set[str]:
    return {str(magic) for part in _PROOFS for entry in access[part].values() for magic in entry["magics"]}


def _tightest(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Each limit as the tighter of the two has it; symbols as ``other``."""
    found = dict(other)
    for key in {*one, *other} - {"symbols"}:
        found[key] = one.get(key) if _tighter(key, other.get(key), one.get(key)) else other.get(key)
    return found


def _tighter(key: str, now: Any, then: Any) -> bool | None:
    """Whether ``then`` allows less than ``now``; ``None``: less of one thing and more of another."""
    if key == "symbols":
        lost, gained = set(now or ()) - set(then or ()), set(then or ()) - set(now or ())
        return None if lost and gained else bool(lost)
    if key == "dry_run":
        return bool(then) and not now
    # null: not limited.
    return then is not None and (now is None or then < now)


def _powers(entry: Mapping[str, Any]) -> str:
    magics = ", ".join(str(magic) for magic in entry["magics"])
    return "may " + ", ".join(entry["permissions"]) + (f"; magic number {magics}" if magics else "")


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value)) or "none"
    return "not limited" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
