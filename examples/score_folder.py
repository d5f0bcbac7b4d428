"""Score a folder of images and read the rows: python examples/score_folder.py FOLDER rows.csv"""

import csv
import os
import sys
from collections import Counter
from pathlib import Path

from sightline import Classifier
from sightline.scoring import ScoreSettings, score_folder

folder, out = Path(sys.argv[1]), Path(sys.argv[2])

with Classifier("mnist", url=os.environ.get("SIGHTLINE_URL", "grpc://localhost:8001")) as mnist:
    job = score_folder(mnist, folder, out, ScoreSettings(top=2))
print(f"{job.rows} rows, {job.broken} of them without a label")

with out.open(encoding="utf-8", newline="") as file:
    rows = list(csv.DictReader(file))
for label, count in sorted(Counter(row["label"] for row in rows if not row["error"]).items()):
    print(f"label {label}: {count}")
for row in rows:
    if row["error"]:
        print(f"broken: {row['image']}")
