"""Finds how a model is best spread over this machine: a real Triton serves it with several settings, side by side with the present ones.

`candidates` are what is tried, `served` keeps servers alive and measures windows on them with perf_analyzer, `ratios` say how sure a figure
is, `race` decides which candidates are worth more rounds, `result` keeps what came of it; `tune` is the verb.
"""

from sightline_serving.tuning.candidates import Candidate
from sightline_serving.tuning.result import Trial, TuneResult
from sightline_serving.tuning.settings import TuneSettings
from sightline_serving.tuning.tune import tune

__all__ = ["Candidate", "Trial", "TuneResult", "TuneSettings", "tune"]
