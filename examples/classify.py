"""Ask a server what is on a few images: python examples/classify.py IMAGE..."""

import os
import sys

from sightline import Classifier

with Classifier("mnist", url=os.environ.get("SIGHTLINE_URL", "grpc://localhost:8001")) as mnist:
    for image, guess in zip(sys.argv[1:], mnist.classify(sys.argv[1:], top=2), strict=True):
        print(image, guess.label, f"{guess.probability:.4f}", f"(then {guess.top[1].label})")
