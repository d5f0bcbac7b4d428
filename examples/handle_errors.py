"""Go on after an unreadable image, and tell the user what else went wrong: python examples/handle_errors.py MODEL IMAGE..."""

import os
import sys

from sightline import Classifier, ImageError, ModelNotFound, ServerUnavailable, SightlineError


def main(model: str, images: list[str]) -> int:
    """Print a line for each image. Returns the exit code."""
    try:
        with Classifier(model, url=os.environ.get("SIGHTLINE_URL", "grpc://localhost:8001"), timeout_s=5) as classifier:
            for image, outcome in zip(images, classifier.stream(images), strict=True):
                if isinstance(outcome, ImageError):
                    print(f"{image}: no label, since it cannot be read: {outcome}")
                else:
                    print(f"{image}: {outcome.label}")
    except ServerUnavailable as error:
        print(f"try again later: {error}", file=sys.stderr)
        return error.exit_code
    except ModelNotFound as error:
        print(f"another model, please: {error}", file=sys.stderr)
        return error.exit_code
    except SightlineError as error:  # the root of the tree: whatever else Sightline raises on purpose
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
