"""Measures a served model with NVIDIA's perf_analyzer, fed with real images and the answers expected for them, and from image files.

`bench` measures the server under load, `end_to_end` one image's way from its file to its answer. `describe` says what was measured, and
where; `write` and `read` keep the result, `compare` holds it to an older one.
"""

from sightline.bench.differences import Comparison, Difference, compare
from sightline.bench.document import BenchDocument, demand_writable, read, write
from sightline.bench.end_to_end import EndToEnd, end_to_end
from sightline.bench.environment import Environment, describe
from sightline.bench.perf_analyzer import find_perf_analyzer
from sightline.bench.run import bench
from sightline.bench.settings import BenchSettings, Load, Measurement

__all__ = [
    "BenchDocument",
    "BenchSettings",
    "Comparison",
    "Difference",
    "EndToEnd",
    "Environment",
    "Load",
    "Measurement",
    "bench",
    "compare",
    "demand_writable",
    "describe",
    "end_to_end",
    "find_perf_analyzer",
    "read",
    "write",
]
