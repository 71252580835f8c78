"""The identity of generations and contents."""

from __future__ import annotations

from mt5crs_release.desired.digest import content_digest, generation_digest, generation_name
from tests.release_host.host import specification


def test_order_of_keys_does_not_matter() -> None:
    spec = specification()
    assert generation_digest(spec, None) == generation_digest(dict(reversed(spec.items())), None)


def test_every_part_matters() -> None:
    digests = {
        generation_digest(specification(), None),
        generation_digest(specification(), "a"),
        generation_digest(specification("other"), None),
        generation_digest(specification(state_format=2), None),
    }
    assert len(digests) == 4


def test_known_values_stay() -> None:
    """Host and controller may be of different releases: a digest must never change its meaning."""
    assert (
        generation_digest({"a": "ä"}, None)
        == "1b33a92b02da5590af5bc4346031a46bb883fedcccd0a7bdbe4e358a25d1b82f"
    )
    assert content_digest({}) == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    assert generation_name(3, "abcdef1234567890") == "0003-abcdef123456"
