"""Prometheus metrics in the text exposition format 0.0.4.

prometheus_client costs 50 to 120 ms of start-up and 7 MB (it loads an HTTP server, TLS and WSGI); a
reconciler has 300 ms and 40 MB for everything, so the three metric types in use are written here.
Format: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

import math
import os
import sys
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

_START = time.time()
LabelValues = tuple[str, ...]


def _number(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(float(value))


def _labels(names: Sequence[str], values: Sequence[str]) -> str:
    if not names:
        return ""
    pairs = []
    for name, value in zip(names, values, strict=True):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        pairs.append(f'{name}="{escaped}"')
    return "{" + ",".join(pairs) + "}"


class _Metric:
    kind = ""

    def __init__(self, name: str, help_text: str, label_names: Sequence[str]) -> None:
        self.name = name
        self.help_text = help_text
        self.label_names = tuple(label_names)
        self._lock = threading.Lock()

    def _key(self, labels: tuple[object, ...]) -> LabelValues:
        if len(labels) != len(self.label_names):
            raise ValueError(f"metric {self.name} takes the labels {self.label_names}, got {labels}")
        return tuple(map(str, labels))

    def samples(self) -> list[str]:
        """Sample lines of this metric."""
        raise NotImplementedError


class Counter(_Metric):
    """A number that only rises; its name ends in `_total`."""

    kind = "counter"

    def __init__(self, name: str, help_text: str, label_names: Sequence[str] = ()) -> None:
        super().__init__(name, help_text, label_names)
        self._values: dict[LabelValues, float] = {} if label_names else {(): 0.0}

    def inc(self, *labels: object, by: float = 1.0) -> None:
        """Add `by` (>= 0) to the series with these label values."""
        if by < 0:
            raise ValueError(f"counter {self.name} cannot fall")
        key = self._key(labels)
        with self._lock:
            self._values[key] = self._values.get(key, 0.0) + by

    def value(self, *labels: object) -> float:
        """Current value of one series (0 when it was never counted)."""
        return self._values.get(self._key(labels), 0.0)

    def samples(self) -> list[str]:
        """Sample lines of this metric."""
        with self._lock:
            items = list(self._values.items())
        return [f"{self.name}{_labels(self.label_names, key)} {_number(value)}" for key, value in items]


class Gauge(_Metric):
    """A number that rises and falls; a callable may supply it at scrape time."""

    kind = "gauge"

    def __init__(self, name: str, help_text: str, label_names: Sequence[str] = ()) -> None:
        super().__init__(name, help_text, label_names)
        self._values: dict[LabelValues, float] = {}
        self._sources: dict[LabelValues, Callable[[], float]] = {}

    def set(self, value: float, *labels: object) -> None:
        """Set the series with these label values."""
        key = self._key(labels)
        with self._lock:
            self._values[key] = float(value)

    def replace(self, values: Mapping[Any, float]) -> None:
        """Set all series, by the label's value (several labels: a tuple); those not named are gone."""
        fresh = {
            self._key(label if isinstance(label, tuple) else (label,)): float(value)
            for label, value in values.items()
        }
        with self._lock:
            self._values = fresh

    def from_callable(self, source: Callable[[], float], *labels: object) -> None:
        """Ask `source` at every scrape for the series with these label values."""
        self._sources[self._key(labels)] = source

    def value(self, *labels: object) -> float:
        """Current value of one series (NaN when it was never set)."""
        key = self._key(labels)
        if key in self._sources:
            return float(self._sources[key]())
        return self._values.get(key, math.nan)

    def samples(self) -> list[str]:
        """Sample lines of this metric."""
        with self._lock:
            items = list(self._values.items())
        items += [(key, float(source())) for key, source in self._sources.items()]
        return [f"{self.name}{_labels(self.label_names, key)} {_number(value)}" for key, value in items]


class Histogram(_Metric):
    """Counts of observations by upper bound, for latencies in seconds."""

    kind = "histogram"

    def __init__(
        self,
        name: str,
        help_text: str,
        label_names: Sequence[str] = (),
        buckets: Sequence[float] = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 3.0, 9.0),
    ) -> None:
        super().__init__(name, help_text, label_names)
        self.buckets = tuple(sorted(buckets))
        empty = [0] * (len(self.buckets) + 1)
        self._counts: dict[LabelValues, list[int]] = {} if label_names else {(): empty}
        self._sums: dict[LabelValues, float] = {} if label_names else {(): 0.0}

    def observe(self, value: float, *labels: object) -> None:
        """Record one observation."""
        key = self._key(labels)
        with self._lock:
            counts = self._counts.setdefault(key, [0] * (len(self.buckets) + 1))
            counts[bisect_left(self.buckets, value)] += 1
            self._sums[key] = self._sums.get(key, 0.0) + value

    def samples(self) -> list[str]:
        """Sample lines of this metric."""
        with self._lock:
            items = [(key, list(counts), self._sums[key]) for key, counts in self._counts.items()]
        lines = []
        for key, counts, total in items:
            running = 0
            for bound, count in zip((*self.buckets, math.inf), counts, strict=True):
                running += count
                labels = _labels((*self.label_names, "le"), (*key, _number(bound)))
                lines.append(f"{self.name}_bucket{labels} {running}")
            labels = _labels(self.label_names, key)
            lines += [f"{self.name}_sum{labels} {_number(total)}", f"{self.name}_count{labels} {running}"]
        return lines


_M = TypeVar("_M", bound=_Metric)


class Registry:
    """The metrics of one process."""

    def __init__(self) -> None:
        self._metrics: dict[str, _Metric] = {}

    def counter(self, name: str, help_text: str, label_names: Sequence[str] = ()) -> Counter:
        """Register a counter; raises ValueError when the name is taken."""
        return self._add(Counter(name, help_text, label_names))

    def gauge(self, name: str, help_text: str, label_names: Sequence[str] = ()) -> Gauge:
        """Register a gauge; raises ValueError when the name is taken."""
        return self._add(Gauge(name, help_text, label_names))

    def histogram(
        self,
        name: str,
        help_text: str,
        label_names: Sequence[str] = (),
        buckets: Sequence[float] | None = None,
    ) -> Histogram:
        """Register a histogram; raises ValueError when the name is taken."""
        if buckets is None:
            return self._add(Histogram(name, help_text, label_names))
        return self._add(Histogram(name, help_text, label_names, buckets))

    def _add(self, metric: _M) -> _M:
        if metric.name in self._metrics:
            raise ValueError(f"metric {metric.name} is registered twice")
        self._metrics[metric.name] = metric
        return metric

    def render(self) -> str:
        """Everything, with the process's own figures, in the text exposition format."""
        blocks = []
        for metric in self._metrics.values():
            blocks.append(f"# HELP {metric.name} {metric.help_text}\n# TYPE {metric.name} {metric.kind}")
            blocks.extend(metric.samples())
        return "\n".join([*blocks, *process_samples()]) + "\n"


def process_samples() -> list[str]:
    """CPU, memory, open files and start time of this process, under the usual names."""
    times = os.times()
    figures: list[tuple[str, str, str, float]] = [
        ("process_cpu_seconds_total", "CPU time used, in seconds.", "counter", times.user + times.system),
        ("process_start_time_seconds", "When the process started, in Unix time.", "gauge", _START),
    ]
    if sys.platform == "linux":
        figures += _linux_figures()
    return sample_lines(figures)


def sample_lines(figures: Iterable[tuple[str, str, str, float]], labels: str = "") -> list[str]:
    """Lines of single figures, each as (name, help, kind, value); `labels` of all: `{host="x"}`."""
    return [
        line
        for name, help_text, kind, value in figures
        for line in (
            f"# HELP {name} {help_text}",
            f"# TYPE {name} {kind}",
            f"{name}{labels} {_number(value)}",
        )
    ]


def _linux_figures() -> list[tuple[str, str, str, float]]:
    """Memory and descriptors; `process_open_fds` equals `process_max_fds` when none is left to look with."""
    import resource

    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    figures: list[tuple[str, str, str, float]] = [
        ("process_max_fds", "Most open file descriptors.", "gauge", most)
    ]
    try:
        resident_pages = int(Path("/proc/self/statm").read_text().split()[1])
        resident = resident_pages * os.sysconf("SC_PAGE_SIZE")
        figures.append(("process_resident_memory_bytes", "Memory in use, in bytes.", "gauge", resident))
        open_files = sum(1 for _ in Path("/proc/self/fd").iterdir())
    except OSError:
        open_files = most
    figures.append(("process_open_fds", "Open file descriptors.", "gauge", open_files))
    return figures
