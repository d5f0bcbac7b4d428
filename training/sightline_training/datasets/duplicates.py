"""Finds images that show one photo: the same to the pixel, or nearly the same by perceptual hashes of the library imagehash.

A photo that was learned from says little about a classifier when it is judged by it. Near means: re-encoded, scaled, turned by a
quarter, mirrored, brightened a little, or cropped a little differently. Not found are copies turned by other angles, and crops of
different things in one scene.

Measured on the fruits (1,182 training and 233 validation images, of which somebody with keypoints found 45 to be other crops of a
training image): 33 of the 45 are found, and 5 of the other 188, of which 3 are copies that the list lacks, two of them mirrored, and 2
are bananas much alike. Among 3,334 test images of CIFAR-10, 44 million comparisons, 3 pairs are found, and all 3 are copies.
Other hashes were tried: of 64 to 256 bits, of colour, by wavelets, and of the whole image, which finds 18 of the 45 if it is to be
wrong 10 times; each was judged by what it finds before it is wrong, so that 33 is a little flattered.
"""

import hashlib
from collections.abc import Callable, Iterator
from typing import Final, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from sightline.preprocess import PreprocessV1
from sightline.reformatting import reformat
from sightline_training.datasets.look import MOST_PIXELS
from sightline_training.progress import tracked

ImageHashes: TypeAlias = npt.NDArray[np.void]
"""What duplicates are found by: an array of HASH_DTYPE, one entry an image."""
Ints: TypeAlias = npt.NDArray[np.int64]
Matches = TypeVar("Matches")

SIDE: Final = 128
"""Pixels a side at which images are compared."""
BITS: Final = 192
"""Of one print: phash (Zauner 2010, "Implementation and benchmarking of perceptual image hash functions") and dhash along the rows and
along the columns (Krawetz 2013, "Kind of like that"), 64 each."""
VERSION: Final = 1
"""Of what an image hash holds: hashes of two versions cannot be compared."""

HASH_DTYPE: Final = np.dtype(
    [
        ("exact", np.uint8, (32,)),  # sha256 of the upright RGB pixels at SIDE x SIDE: equal if the decoded images are
        ("prints", np.uint8, (8, BITS // 8)),  # of the image, and of its other seven quarter turns and mirror images
        ("tint", np.uint8, (2,)),  # mean Cb and Cr
        ("plain", np.bool_),  # an even surface, of which a hash says nothing
    ]
)

NEAR_BITS: Final = (24, 16, 8)
"""Prints of one photo differ in at most so many bits; the stricter ones are for images that are all alike (see `_strict_enough`)."""
NEAR_TINT: Final = 12
"""Levels by which the mean colour of two images of one photo may differ."""
GROUND: Final = 80
"""Levels by which a pixel differs from the border if it belongs to the thing that is shown."""
SPECKS: Final = 0.03
"""Share of a row or column that must differ, or else it is trimmed: dust and JPEG's ringing do not count."""
PLAIN: Final = 4.0
"""Standard deviation of luma, in levels, below which a surface is even."""
MOST_COMPARED: Final = 150_000
"""Every image is compared with every other: 15 s of CPU for 20,000, so minutes for this many, but ten hours for a million. Of more,
only exact copies are found."""
BLOCK: Final = (1024, 8192)
"""Rows and columns for which distances are computed at once."""
EDGES: Final = 1_000_000
"""Pairs that are kept until they are joined."""

PIXELS: Final = PreprocessV1(
    version=1,
    mode="RGB",
    size=(SIDE, SIDE),
    fit="stretch",
    crop_fraction=1.0,
    resample="bilinear",
    background=(255, 255, 255),
    exif="apply",
    polarity="as-is",
    mean=(0.0, 0.0, 0.0),
    std=(1.0, 1.0, 1.0),
)


def hash_image(image: Image.Image) -> ImageHashes:
    """Return the hash of a decoded image, shape (). Raises ImageError if it has no defined 8-bit pixels."""
    from imagehash import dhash, dhash_vertical, phash  # half a second that only folders of images need

    pixels = reformat(image, PIXELS, MOST_PIXELS)
    trimmed = Image.fromarray(_trimmed(pixels))
    luma, *tints = (np.asarray(plane) for plane in trimmed.convert("YCbCr").split())
    # Each hash scales the image down by itself, so let it begin with less.
    small = Image.fromarray(luma).resize((SIDE // 2, SIDE // 2), Image.Resampling.LANCZOS)
    image_hash = np.zeros((), HASH_DTYPE)
    image_hash["exact"] = np.frombuffer(hashlib.sha256(pixels.tobytes()).digest(), np.uint8)
    image_hash["tint"] = [round(float(plane.mean())) for plane in tints]
    image_hash["plain"] = float(luma.std()) < PLAIN
    for at, turned in enumerate([small, *(small.transpose(turn) for turn in Image.Transpose)]):
        image_hash["prints"][at] = np.packbits([kind(turned).hash for kind in (phash, dhash, dhash_vertical)])
    return image_hash


def near_duplicates(known: ImageHashes, known_labels: Ints, judged: ImageHashes, judged_labels: Ints) -> dict[int, int]:
    """Return the index of each judged image that is or nearly is a known one → index of the known one, the most alike."""
    exact = {digest.tobytes(): at for at, digest in reversed(list(enumerate(known["exact"])))}
    copies = {at: exact[digest.tobytes()] for at, digest in enumerate(judged["exact"]) if digest.tobytes() in exact}
    if len(known) * len(judged) > MOST_COMPARED**2:
        return copies

    def nearest(bits: int) -> tuple[dict[int, int], int]:
        partner, distance = np.full(len(judged), -1), np.full(len(judged), BITS + 1)
        for pairs in _alike(judged, known, bits):
            # The nearest comes last: of several writes to one place the last one counts.
            rows, columns, apart = (values[np.lexsort((-pairs[1], -pairs[2]))] for values in pairs)
            nearer = apart < distance[rows]
            partner[rows[nearer]], distance[rows[nearer]] = columns[nearer], apart[nearer]
        near = {int(at): int(partner[at]) for at in np.flatnonzero(partner >= 0)} | copies
        return near, sum(known_labels[near[at]] != judged_labels[at] for at in near.keys() - copies.keys())

    return dict(sorted(_strict_enough(nearest, len(judged), copies).items()))


def same_photo(hashes: ImageHashes, labels: Ints) -> Ints:
    """Return a group number for each image, shape (N,): images in one group are, or nearly are, linked by being the same."""
    exact: Ints = np.unique(hashes["exact"], axis=0, return_inverse=True)[1].reshape(-1)
    if len(hashes) > MOST_COMPARED:
        return exact
    mixed_anyway = mixed(exact, labels)

    def joined(bits: int) -> tuple[Ints, int]:
        groups = _joined(hashes, exact, bits)
        return groups, int((mixed(groups, labels) & ~mixed_anyway).sum())

    groups: Ints = _strict_enough(joined, len(hashes), exact)
    return groups


def mixed(groups: Ints, labels: Ints) -> npt.NDArray[np.bool_]:
    """Return which images stand in a group with images of another class; groups are numbered below N."""
    least, most = np.full(len(groups), np.iinfo(np.int64).max), np.full(len(groups), -1)
    np.minimum.at(least, groups, labels)
    np.maximum.at(most, groups, labels)
    between: npt.NDArray[np.bool_] = (least != most)[groups]
    return between


def _strict_enough(search: Callable[[int], tuple[Matches, int]], count: int, otherwise: Matches) -> Matches:
    """Return what `search` gives at the loosest distance at which hardly any image (its second answer) is taken for one of another class.

    Two classes seldom hold one photo. If many images of `count` seem to, it is because they are all alike, as digits or scans are.
    """
    for bits in NEAR_BITS:
        matches, confused = search(bits)
        if confused <= max(10, count // 100):
            return matches
    return otherwise


def _joined(hashes: ImageHashes, exact: Ints, bits: int) -> Ints:
    """Return connected components of the relation "nearly the same", starting from groups of exact copies."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    groups = exact.copy()
    _, first = np.unique(exact, return_index=True)
    pending: list[Ints] = []

    def fold() -> None:
        left, right = np.concatenate(pending, axis=1)
        graph = coo_array((np.ones(len(left), bool), (left, right)), shape=(len(hashes), len(hashes)))
        groups[:] = connected_components(graph, directed=False)[1][groups]
        pending.clear()

    for rows, columns, _ in _alike(hashes[first], hashes[first], bits, later_only=True):
        pair = np.stack([groups[first[rows]], groups[first[columns]]])
        pending.append(np.unique(pair[:, pair[0] != pair[1]], axis=1))
        if sum(pairs.shape[1] for pairs in pending) > EDGES:
            fold()
    if pending:
        fold()
    return groups


def _alike(of: ImageHashes, among: ImageHashes, bits: int, later_only: bool = False) -> Iterator[tuple[Ints, Ints, Ints]]:
    """Yield pairs (indices into `of`, into `among`, bits apart) that are nearly the same; with `later_only` only the later ones of one set.

    The distance of two prints is a product: of bits as ±1, BITS minus twice the number that differs. BLAS is much faster at that than
    numpy at counting bits.
    """
    columns = _signs(among["prints"][:, 0])
    for top in tracked(range(0, len(of), BLOCK[0]), "comparing images", bar_from=8):
        rows = of[top : top + BLOCK[0]]
        for turn in range(rows["prints"].shape[1]):
            signs = _signs(rows["prints"][:, turn])
            for left in range(top if later_only else 0, len(among), BLOCK[1]):
                product = signs @ columns[left : left + BLOCK[1]].T
                row, column = np.nonzero(product >= BITS - 2 * bits)
                apart = ((BITS - product[row, column]) / 2).astype(np.int64)
                row, column = row + top, column + left
                tints = np.abs(of["tint"][row].astype(np.int64) - among["tint"][column]).max(axis=1)
                good = (tints <= NEAR_TINT) & ~of["plain"][row] & ~among["plain"][column]
                if later_only:
                    good &= row < column
                yield row[good], column[good], apart[good]


def _signs(prints: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    return np.unpackbits(prints, axis=1).astype(np.float32) * 2 - 1


def _trimmed(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return what of pixels [H, W, 3] differs from the border's median colour: other crops of a thing on even ground become alike."""
    levels = pixels.astype(np.int16)
    border = np.concatenate([levels[0], levels[-1], levels[:, 0], levels[:, -1]])
    differs = np.abs(levels - np.median(border, axis=0)).max(axis=2) > GROUND
    rows, columns = np.flatnonzero(differs.mean(axis=1) > SPECKS), np.flatnonzero(differs.mean(axis=0) > SPECKS)
    if min(len(rows), len(columns)) < SIDE // 8:
        return pixels
    return pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
