"""Key pairs of CURVE as the inventory has them: 64 hexadecimal digits each."""

from __future__ import annotations


def pair() -> tuple[str, str]:
    """(public, secret) of a new pair."""
    import zmq
    from zmq.utils import z85

    public, secret = zmq.curve_keypair()
    return z85.decode(public).hex(), z85.decode(secret).hex()


def public_half(secret: str) -> str | None:
    """The public half of a secret key; None: it is no key."""
    import zmq
    from zmq.utils import z85

    try:
        return z85.decode(zmq.curve_public(z85.encode(bytes.fromhex(secret)))).hex()
    except (ValueError, zmq.ZMQError):
        return None
