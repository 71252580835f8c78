"""What is new in a fleet's configuration, by name and keyed digest; no value is needed or known. Pure.

A configuration says of each setting which digest it has on which hosts: `{"gateway_port": {"ab12…": "all"}}`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

ALL = "all"
"""In place of a list of hosts: on every host of the configuration."""
_WAIVERS = "policy/waivers/"


@dataclass(frozen=True)
class Changes:
    """Names of settings with the digests before and after, apart by what they are; names of files."""

    settings: Mapping[str, Any]
    secrets: Mapping[str, Any]
    access: Mapping[str, Any]
    files: list[str]
    waivers: list[str]
    first: bool = False
    """There was no configuration before, so that nothing is told to have changed."""
    rekeyed: bool = False
    """The key of the digests is another one (another vault password), so settings cannot be compared."""


def between(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> Changes | None:
    """What changed; None when nothing did."""
    if before is None:
        return Changes({}, {}, {}, [], [], first=True)
    names = sorted({*before["files"], *after["files"]})
    files = [name for name in names if before["files"].get(name) != after["files"].get(name)]
    waivers = [name for name in files if name.startswith(_WAIVERS)]
    files = [name for name in files if name not in waivers]
    rekeyed = before["key"] != after["key"]
    changed = {} if rekeyed else dict(_settings(before, after))
    secret, access = (
        set(after["secret"]) | set(before["secret"]),
        set(after["access"]) | set(before["access"]),
    )
    if not (files or waivers or changed or rekeyed):
        return None
    return Changes(
        {name: of for name, of in changed.items() if name not in secret and name not in access},
        {"vault password": {}} if rekeyed else {name: of for name, of in changed.items() if name in secret},
        {name: of for name, of in changed.items() if name in access and name not in secret},
        files,
        waivers,
        rekeyed=rekeyed,
    )


def _settings(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name in sorted({*before["settings"], *after["settings"]}):
        then, now = before["settings"].get(name, {}), after["settings"].get(name, {})
        if then == now and before["hosts"] == after["hosts"]:
            continue
        was, is_ = _by_host(then, before["hosts"]), _by_host(now, after["hosts"])
        hosts = [host for host in sorted({*was, *is_}) if was.get(host) != is_.get(host)]
        if hosts:
            digests = {(was.get(host), is_.get(host)) for host in hosts}
            yield (
                name,
                [
                    {
                        "before": one,
                        "after": other,
                        "hosts": [host for host in hosts if (was.get(host), is_.get(host)) == (one, other)],
                    }
                    for one, other in sorted(digests, key=str)
                ],
            )


def _by_host(of: Mapping[str, Any], hosts: list[str]) -> dict[str, str]:
    return {host: digest for digest, on in of.items() for host in (hosts if on == ALL else on)}
