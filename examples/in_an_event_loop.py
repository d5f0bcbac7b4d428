"""Classify images from many tasks of an event loop, as a web application does: python examples/in_an_event_loop.py IMAGE..."""

import asyncio
import os
import sys

from sightline import AsyncClassifier, ImageError


async def answer(mnist: AsyncClassifier, image: str) -> str:
    """Return what a request of the application would be answered."""
    try:
        async with asyncio.timeout(5):
            (guess,) = await mnist.classify(image)
    except ImageError as error:
        return f"no label: {error}"
    return f"{image}: {guess.label}"


async def main(images: list[str]) -> None:
    """Open the classifier once, and share it between the tasks."""
    async with AsyncClassifier("mnist", url=os.environ.get("SIGHTLINE_URL", "grpc://localhost:8001")) as mnist:
        for line in await asyncio.gather(*(answer(mnist, image) for image in images)):
            print(line)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
