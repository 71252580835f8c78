"""`python -m mt5crs.broker.sim DIRECTORY '{"do": "trade", …}'`: act on a running simulated broker."""

import json
import sys
from pathlib import Path

from .inbox import ask

USAGE = """usage: python -m mt5crs.broker.sim DIRECTORY COMMAND
DIRECTORY  the broker's directory, usually STATE_DIR/sim
COMMAND    JSON: {"do": "trade", "symbol", "side", "volume", "magic"}  {"do": "close", "position"}
           {"do": "cancel", "order"}  {"do": "price", "symbol", "bid", "ask"}  {"do": "free_price", "symbol"}
           {"do": "deposit", "amount"}  {"do": "clock", "shift_ms"}
           {"do": "faults", "faults": {"send": [{"kind": "lose_reply"}], …}}"""


def main(arguments: list[str]) -> int:
    """Entry point; exit status 0 done, 1 refused or no answer, 2 usage."""
    if len(arguments) != 2:
        print(USAGE, file=sys.stderr)
        return 2
    try:
        command = json.loads(arguments[1])
        print(json.dumps(ask(Path(arguments[0]) / "inbox", command)))
    except (ValueError, TimeoutError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
