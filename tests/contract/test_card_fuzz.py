"""Ten thousand damaged and forged cards: each is refused with its place named, or means what the text says; nothing else happens."""

import time

import pytest

from sightline.card import unseal
from sightline.errors import ContractError
from sightline.preprocess import VERSIONS
from support.card_fuzz import WHERE, check_fuzzed
from support.specs import SPECS_OF, card


@pytest.mark.parametrize("version", VERSIONS)
def test_ten_thousand_mutated_cards_are_refused_with_the_place_named_or_mean_what_they_say(
    version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_fuzzed([card(preprocess=spec) for spec in SPECS_OF[version].values()], 10_000, monkeypatch)


def test_a_text_of_the_greatest_length_takes_bounded_time_to_refuse() -> None:
    longest = 16 * 1024 * 1024 - 100
    for text in (
        '{"card":{"labels":[' + "0," * (longest // 2 - 40) + '0]},"sha256":""}',
        '{"card":{"labels":["' + "a" * (longest - 60) + '"]},"sha256":""}',
        '{"card":' + "9" * (longest - 30) + ',"sha256":""}',
        '{"card":{"preprocess":{"mean":[0.' + "9" * (longest - 60) + ']}},"sha256":""}',
        '{"card":{' + ",".join(f'"k{at}":0' for at in range(1_000_000)) + '},"sha256":""}',
    ):
        began = time.process_time()
        with pytest.raises(ContractError) as refusal:
            unseal(text, WHERE)
        assert time.process_time() - began < 10
        assert len(str(refusal.value)) < 800
