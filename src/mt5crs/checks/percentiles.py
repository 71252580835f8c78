"""Figures of a sample: percentiles by the nearest rank, how far to trust them, and a picture. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

_CONFIDENT_TAIL = 10
"""A percentile rests on the samples beyond it; with fewer than this it is an anecdote."""


def percentile(ordered: Sequence[float], share: float) -> float:
    """Nearest-rank percentile of a sorted sample (share 0 < p <= 1). Raises ValueError for an empty one."""
    if not ordered:
        raise ValueError("no samples, no percentile")
    if not 0 < share <= 1:
        raise ValueError(f"share {share} is not in (0, 1]")
    return ordered[max(0, math.ceil(share * len(ordered) - 1e-9) - 1)]


def confidence_note(samples: int, share: float) -> str:
    """A warning when a percentile rests on too few samples; empty when it does not."""
    beyond = samples * (1 - share)
    if beyond >= _CONFIDENT_TAIL - 1e-9:
        return ""
    needed = math.ceil(_CONFIDENT_TAIL / (1 - share) - 1e-6)
    return f"P{share * 100:g} rests on {beyond:.1f} samples beyond it; take at least {needed}"


def buckets(values: Sequence[float], count: int = 20) -> list[tuple[float, float, int]]:
    """(low, high, number) on a logarithmic scale, which shows a tail beside a narrow peak."""
    if not values:
        return []
    low, high = max(min(values), 1e-6), max(values)
    ratio = (high / low) ** (1 / count) if high > low else 1.0
    edges = [low * ratio**n for n in range(count)] + [high] if ratio > 1.0 else [low, high]
    found = [0] * (len(edges) - 1)
    for value in values:
        index = 0 if ratio <= 1.0 or value <= low else int(math.log(value / low) / math.log(ratio))
        found[min(max(index, 0), len(found) - 1)] += 1
    return [(edges[n], edges[n + 1], number) for n, number in enumerate(found)]


def histogram_text(values: Sequence[float], unit: str, width: int = 50) -> str:
    """Bars for a terminal."""
    parts = buckets(values)
    most = max((number for *_, number in parts), default=0)
    return "\n".join(
        f"{low:10.3f} - {high:10.3f} {unit} {number:7} {'#' * math.ceil(number * width / most)}"
        for low, high, number in parts
    )


def histogram_svg(values: Sequence[float], marks: dict[str, float], unit: str, title: str) -> str:
    """The same as a self-contained SVG, with marked percentiles."""
    parts = buckets(values, 60)
    width, height, left, bottom = 900, 360, 60, 50
    most = max((number for *_, number in parts), default=1)
    low, high = parts[0][0], parts[-1][1]
    span = math.log(high / low) if high > low else 1.0

    tall = height - bottom - 50

    def x(value: float) -> float:
        return left + (width - left - 20) * math.log(max(value, low) / low) / span

    shapes = [
        f'<rect x="{x(a):.1f}" y="{height - bottom - tall * n / most:.1f}" '
        f'width="{max(1.0, x(b) - x(a) - 1):.1f}" height="{tall * n / most:.1f}" fill="#4477aa"/>'
        for a, b, n in parts
    ]
    for row, (name, value) in enumerate(marks.items()):
        shapes.append(
            f'<line x1="{x(value):.1f}" y1="40" x2="{x(value):.1f}" y2="{height - bottom}" stroke="#cc3311"/>'
            f'<text x="{x(value) + 4:.1f}" y="{52 + 14 * row}" font-size="12">'
            f"{name} {value:.3f} {unit}</text>"
        )
    for value in (low, math.sqrt(low * high), high):
        shapes.append(
            f'<text x="{x(value):.1f}" y="{height - bottom + 18}" font-size="12" text-anchor="middle">'
            f"{value:.3f}</text>"
        )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif">'
        f'<rect width="{width}" height="{height}" fill="white"/>'
        f'<text x="{left}" y="24" font-size="16">{title}</text>{"".join(shapes)}'
        f'<text x="{width / 2}" y="{height - 8}" font-size="12" text-anchor="middle">'
        f"{unit}, logarithmic; {len(values)} samples</text></svg>\n"
    )
