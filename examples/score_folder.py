"""Score a folder of images and read the rows: python examples/score_folder.py FOLDER rows.parquet

Started again after it was ended, it goes on where it was.
"""

import os
import sys
from collections import Counter
from pathlib import Path

from sightline import Classifier
from sightline.scoring import ScoreSettings, rows_of, score

folder, out = Path(sys.argv[1]), Path(sys.argv[2])

with Classifier("mnist", url=os.environ.get("SIGHTLINE_URL", "grpc://localhost:8001"), wait_s=120) as mnist:
    job = score(mnist, folder, out, ScoreSettings(top=2, resume=True))
print(f"{job.rows} rows, {job.broken} of them without a label")

labels: Counter[str] = Counter()
for row in rows_of(out):
    if row.error:
        print(f"broken: {row.image} ({row.error_kind})")
    else:
        labels[row.label] += 1
for label, count in sorted(labels.items()):
    print(f"label {label}: {count}")
