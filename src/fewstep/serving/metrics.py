"""Counters and histograms in Prometheus' text format (version 0.0.4)."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator

from fewstep.serving.engine import Engine

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """What the HTTP side has seen; the engine counts its own."""

    def __init__(self) -> None:
        self._requests: Counter[tuple[str, int]] = Counter()
        self._buckets: dict[str, list[int]] = {}
        self._sums: Counter[str] = Counter()

    def observe(self, route: str, status: int, seconds: float) -> None:
        """One answered request."""
        self._requests[route, status] += 1
        buckets = self._buckets.setdefault(route, [0] * (len(SECONDS) + 1))
        buckets[bisect_left(SECONDS, seconds)] += 1
        self._sums[route] += seconds  # type: ignore[assignment]

    def text(self, engine: Engine) -> str:
        """All of it."""
        return "\n".join([*self._http(), *self._engine(engine), ""])

    def _http(self) -> Iterator[str]:
        yield "# HELP fewstep_requests_total Answered requests by route and status."
        yield "# TYPE fewstep_requests_total counter"
        for (route, status), count in sorted(self._requests.items()):
            yield f'fewstep_requests_total{{route="{route}",status="{status}"}} {count}'
        yield "# HELP fewstep_request_seconds Time from request to answer."
        yield "# TYPE fewstep_request_seconds histogram"
        for route, buckets in sorted(self._buckets.items()):
            total = 0
            for bound, count in zip((*map(str, SECONDS), "+Inf"), buckets, strict=True):
                total += count
                yield f'fewstep_request_seconds_bucket{{route="{route}",le="{bound}"}} {total}'
            yield f'fewstep_request_seconds_sum{{route="{route}"}} {self._sums[route]:.6f}'
            yield f'fewstep_request_seconds_count{{route="{route}"}} {total}'

    def _engine(self, engine: Engine) -> Iterator[str]:
        counts = engine.counts
        for name, kind, help_, value in (
            ("queue_length", "gauge", "Requests that wait.", engine.waiting),
            ("queue_capacity", "gauge", "Requests that may wait.", engine.capacity),
            ("batches_total", "counter", "Batches that were run.", counts.batches),
            ("batched_requests_total", "counter", "Requests in those.", counts.requests),
            ("images_total", "counter", "Images that were made.", counts.images),
            ("cancelled_total", "counter", "Requests dropped unrun.", counts.cancelled),
            ("busy_seconds_total", "counter", "Time spent in models.", f"{counts.seconds:.6f}"),
        ):
            yield f"# HELP fewstep_{name} {help_}"
            yield f"# TYPE fewstep_{name} {kind}"
            yield f"fewstep_{name} {value}"
