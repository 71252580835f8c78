"""What a host sends from: routes to its peers, and to itself, that name the address, until it is restarted.

Peers, and the units of its own services, admit what comes from the address that the inventory says. A host
with two sends from the first, to the second as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from deploy.remote import ssh

_WITHIN_S = 30
_OURS: Final = 86
"""The protocol that our routes are marked with (`ip route show proto 86`)."""
TAKE_AWAY: Final = f"ip route flush proto {_OURS}"
"""On the host: takes our routes away again."""
_SEND = f"""
wanted=$1; shift
peers=$*
set -- $(ip -o address show to "$wanted")
[ $# -gt 2 ] || {{ echo "it does not have $wanted" >&2; exit 1; }}
case $wanted in
  *:*) ;;
  *) ip route replace local "$wanted" dev "$2" table local proto kernel scope host src "$wanted" || exit 1;;
esac
for peer in $peers; do
  case $peer in *:*) bits=128;; *) bits=32;; esac
  ip route del "$peer/$bits" proto {_OURS} 2>/dev/null
  set_to=$(ip -o route get "$peer") || exit 1
  set -- $set_to
  via= dev= from=
  while [ $# -gt 1 ]; do
    case $1 in via) via="via $2";; dev) dev=$2;; src) from=$2;; esac
    shift
  done
  [ "$from" = "$wanted" ] && continue
  ip route replace "$peer/$bits" $via dev "$dev" src "$wanted" proto {_OURS} || exit 1
done
"""


def send_from(variables: Mapping[str, Any], address: str, peers: Sequence[str]) -> str:
    """Have the host send to these peers, and to itself, from an address of its own; empty, or why not.

    What is connected stays so. Can be repeated; a route of ours that is not needed is taken away.
    """
    reply = ssh.run(variables, ["sh", "-c", _SEND, "send", address, *peers], timeout_s=_WITHIN_S)
    return "" if reply.status == 0 else f"it does not send from {address} ({reply.why})"
