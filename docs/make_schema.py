"""Writes docs/model-card.schema.json from the code that reads cards.

python docs/make_schema.py
"""

import json
from pathlib import Path

from sightline.card import json_schema

if __name__ == "__main__":
    path = Path(__file__).with_name("model-card.schema.json")
    path.write_text(json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
