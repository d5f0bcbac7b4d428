"""What a search is told, as one value that is validated at once."""

from dataclasses import dataclass

from sightline.errors import UsageError

MOST_CONCURRENCIES = 8


@dataclass(frozen=True, kw_only=True)
class TuneSettings:
    """How a model is measured, and what it must keep to."""

    concurrencies: tuple[int, ...] = (1, 8, 32)
    """Requests of one image under way at a time. A lone client, some, and many: what serves one of them best may serve another badly."""
    window_s: float = 1.0
    """Of each measurement; longer by itself where so few requests are answered in it that a whole batch more or less would show."""
    p99_ms: float | None = None
    """The largest 99th percentile of latency that is allowed, at each concurrency; None allows any."""
    exhaustive: bool = False
    """Measure every candidate in as many rounds as the others, and drop none before the final rounds."""

    def __post_init__(self) -> None:
        """Raise UsageError for what cannot be measured."""
        if not 1 <= len(self.concurrencies) <= MOST_CONCURRENCIES or len(set(self.concurrencies)) < len(self.concurrencies):
            raise UsageError(f"name 1 to {MOST_CONCURRENCIES} concurrencies, each once")
        if min(self.concurrencies) < 1 or not self.window_s > 0 or not (self.p99_ms is None or self.p99_ms > 0):
            raise UsageError("concurrency, window and 99th percentile must be positive")
