"""Damages and forges sealed cards at random, and holds what `unseal` does with them against what the text says."""

import builtins
import codecs
import copy
import json
import math
import os
import random
import re
import subprocess
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from sightline.card import ModelCard, seal, unseal
from sightline.errors import ContractError
from support.cards import resealed

WHERE = "config.pbtxt of model fruit"

PLACE = re.compile(
    r"card(\.|\[|: )|the sha256 beside it is|exactly the members|the member \"|nested too deeply|the text is|"
    r"line \d+ column \d+|in position \d+|truncated data"
)
"""A field, a member, or where in the text reading stopped (the last is Python's word for half a UTF-16 letter)."""

ODD: list[Any] = [
    *(None, True, False, 0, -1, 1, 2, 255, 256, 4096, 4097, 10**18, 10**19, 10**20, 10**40, -(10**40)),
    *(0.0, -0.0, 0.5, 1.0, 1.5, 1e-320, 1e308, math.nan, math.inf, -math.inf),
    *("", " ", "1", "RGB", "L", "BGR", "apply", "pad", "\x00", "\n", "\ud800", "\udfff\ud800", "\ufeff", "\u2028", "é", "e\u0301", "𝔸"),
    *("../../etc/passwd", "/dev/zero", "$(touch owned)", "`id`", "__import__('os').system('id')", "!!python/object:os.system"),
    *("{{7*7}}", "%s%n", "\x1b[2J", "x" * 300, "x" * 5000),
    *([], {}, [[]], [{}], {"": {}}, {"__class__": "os"}, [0], [0, 0, 0], [0.5, 0.5, 0.5], [1] * 5000),
]


NUMBERS = ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "9" * 5000, "0x10", "01", "1_0", "٣", "1e-999", "--1", "+1", "1."]


def check_fuzzed(originals: Sequence[ModelCard], count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Check that each of `count` texts is refused with its place named, or means what it says, and that nothing else happens."""

    def never(*_: object, **__: object) -> None:
        raise AssertionError("reading a card ran or opened something")

    for codec in ("utf-16", "utf-32", "utf-32-be", "utf-32-le", "utf-16-be", "utf-16-le", "utf-8-sig", "latin-1"):
        codecs.lookup(codec)  # so that none is imported, and so opened, below
    for module, name in ((os, "system"), (os, "open"), (subprocess, "Popen"), (builtins, "open"), (builtins, "eval"), (builtins, "exec")):
        monkeypatch.setattr(module, name, never)
    chance = random.Random(2026)
    ends: Counter[str] = Counter()
    slowest_s = 0.0
    for _ in range(count):
        original = chance.choice(originals)
        text = mutated(original.model_dump(mode="json"), seal(original), chance)
        began = time.process_time()
        try:
            card = unseal(text, WHERE)
        except ContractError as error:
            sentence = str(error)
            assert sentence.startswith(f"{WHERE}: no valid model card: "), sentence
            assert PLACE.search(sentence), sentence
            assert sentence.isprintable(), sentence
            assert len(sentence) < 800, sentence
            ends["refused"] += 1
        else:
            content = json.loads(text, parse_int=int)
            assert same(json.loads(seal(card))["card"], content["card"]), text
            assert card.sha256 == content["sha256"]
            ends["the same card" if card == original else "another card, whole and rightly sealed"] += 1
        slowest_s = max(slowest_s, time.process_time() - began)
    assert ends.total() == count
    # The fuzzer itself must keep reaching all three ends, or the check above would say little.
    assert ends["refused"] > 0.8 * count
    assert ends["the same card"] > 0.01 * count
    assert ends["another card, whole and rightly sealed"] > 0.01 * count
    assert slowest_s < 2.0  # of processor time for one text


def same(one: Any, other: Any) -> bool:
    """Equal as JSON means it: 1 and 1.0 are one number, true is none."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def mutated(content: dict[str, Any], sealed: str, chance: random.Random) -> str | bytes:
    """One damaged or forged text; about half of those whose content was changed carry a hash that fits the change."""
    kind = chance.randrange(10)
    if kind < 6:
        content = copy.deepcopy(content)
        for _ in range(chance.choice((1, 1, 1, 2, 5))):
            _change(content, chance)
        try:
            forged = resealed(content)
        except (ValueError, RecursionError):
            return sealed[: chance.randrange(len(sealed))]
        if chance.random() < 0.5:
            return json.dumps({"card": content, "sha256": json.loads(sealed)["sha256"]})
        return forged
    return (_cut, _flipped, _replaced, _wrapped)[kind - 6](sealed, chance)


def _change(content: dict[str, Any], chance: random.Random) -> None:
    inside: Any = content
    while True:
        keys = list(inside) if isinstance(inside, dict) else list(range(len(inside)))
        if not keys:
            return
        key = chance.choice(keys)
        if isinstance(inside[key], (dict, list)) and inside[key] and chance.random() < 0.7:
            inside = inside[key]
            continue
        break
    action = chance.randrange(8)
    if action == 0:
        del inside[key]
    elif action == 1 and isinstance(inside, dict):
        inside[chance.choice(["gamma", "version", "", "__proto__", "\x1b[31m", "\ud800", "x" * 500, "labels"])] = chance.choice(ODD)
    elif action == 2 and isinstance(inside, list):
        inside.insert(chance.randrange(len(inside) + 1), copy.deepcopy(chance.choice([*ODD, inside[key]])))
    elif action == 3:
        deep: Any = chance.choice(ODD)
        for _ in range(chance.choice((1, 10, 400))):
            deep = [deep] if chance.random() < 0.5 else {"a": deep}
        inside[key] = deep
    elif action == 4 and isinstance(inside[key], (int, float)):
        number = inside[key]
        inside[key] = chance.choice([number + 1, number * 2, -number, number / 2, str(number), [number]])
    elif action == 5 and isinstance(inside[key], str):
        word = inside[key]
        inside[key] = chance.choice([word + "x", word.upper(), word[:-1], word + " ", [word], word * 100])
    else:
        inside[key] = copy.deepcopy(chance.choice(ODD))


def _cut(sealed: str, chance: random.Random) -> str | bytes:
    return sealed[: chance.randrange(len(sealed))] + chance.choice(["", "}", '"', "\x00", "]"])


def _flipped(sealed: str, chance: random.Random) -> bytes:
    raw = bytearray(sealed.encode())
    for _ in range(chance.choice((1, 1, 3, 20))):
        raw[chance.randrange(len(raw))] ^= 1 << chance.randrange(8)
    return bytes(raw)


def _replaced(sealed: str, chance: random.Random) -> str:
    number = chance.choice(NUMBERS)
    numbers = list(re.finditer(r"(?<=[\[:,])-?\d+(\.\d+)?(?=[,\]}])", sealed))
    at = chance.choice(numbers)
    if chance.random() < 0.3:  # one digit of one number
        digit = chance.randrange(at.start(), at.end())
        return sealed[:digit] + str(chance.randrange(10)) + sealed[digit + 1 :]
    return sealed[: at.start()] + number + sealed[at.end() :]


def _wrapped(sealed: str, chance: random.Random) -> str | bytes:
    twice = chance.choice(["name", "labels", "mean", "version", "preprocess", "max_batch_size"])
    texts: list[str | bytes] = [
        "\ufeff" + sealed,
        b"\xef\xbb\xbf" + sealed.encode(),
        sealed.encode("utf-16"),
        sealed.encode("utf-32-be"),
        sealed.encode("latin-1", "replace"),
        sealed + sealed,
        f"[{sealed}]",
        f"\n\t {sealed} \r\n",
        sealed + "\x00",
        json.dumps(sealed),
        json.dumps(json.loads(sealed), indent=2),
        sealed.replace(f'"{twice}":', f'"{twice}":0,"{twice}":', 1),
        sealed.replace(f'"{twice}":', f'"{twice.upper()}":', 1),
        sealed.replace('"card":', '"card":{},"card":', 1),
        sealed.replace('"', "'"),
        sealed.replace(",", ",,", 1),
        sealed.replace('"sha256":"', '"sha256":"0', 1),
        "[" * chance.choice((10, 900, 50_000)) + sealed,
        sealed.encode() + b"\xff\xfe",
    ]
    return chance.choice(texts)
