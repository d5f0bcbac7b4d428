"""The formats that rows can be written in here: Parquet where pyarrow is installed, which the base install is without."""

from importlib.util import find_spec

SUFFIXES = ("csv", "jsonl", "parquet") if find_spec("pyarrow") else ("csv", "jsonl")
