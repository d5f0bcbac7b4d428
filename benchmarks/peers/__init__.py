"""The race against the peers: the same ONNX models behind other servers, measured in one run."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2] / "scripts"))  # process_tree is shared with scripts/measure_memory.py
