"""A new version of the specification is one model, one function, one corpus and one oracle: a throw-away version 3 goes the whole way."""

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from sightline import Classifier, ContractError, Preprocess, PreprocessV1, reformat, seal, unseal
from sightline.card import json_schema
from sightline.preprocess import VERSIONS
from sightline.reformatting import BY_VERSION
from sightline.testing import FakeTransport
from support import golden_corpus as golden
from support import make_corpus, next_version, oracle
from support.card_fuzz import check_fuzzed
from support.cards import resealed
from support.fake_network import brightest
from support.fake_network import card as colours
from support.mutation import Mutant, loaded
from support.next_version import PreprocessV3
from support.specs import SPECS, SPECS_OF, SPECS_V2, card

ADVICE = "Export the model again, or restore the copy that was published."


@pytest.fixture
def specs(monkeypatch: pytest.MonkeyPatch) -> dict[str, Preprocess]:
    """The specifications of version 3, which is registered during the test."""
    monkeypatch.setitem(VERSIONS, 3, PreprocessV3)
    monkeypatch.setitem(BY_VERSION, 3, next_version.reformat_v3)
    monkeypatch.setitem(oracle.BY_VERSION, 3, next_version.oracle_v3)
    specifications = next_version.specs()
    monkeypatch.setitem(SPECS_OF, 3, specifications)
    return specifications


def test_a_card_of_version_3_is_written_and_read_back_with_its_own_field(specs: dict[str, Preprocess]) -> None:
    written = card(preprocess=specs["mirrored"])
    sealed = seal(written)
    assert '"mirror":"left-right"' in sealed
    assert sealed.count('"version":3') == 1
    back = unseal(sealed, "here")
    assert back == written
    assert isinstance(back.preprocess, PreprocessV3)
    assert seal(back) == sealed


def test_version_1_is_written_and_read_as_if_there_were_no_other(specs: dict[str, Preprocess]) -> None:
    assert specs
    assert card().sha256 == "8c6e2527b31ef525f19bfd50d75d2b2924a97f74c41398542908fbc8f47f1561"
    assert type(unseal(seal(card()), "here").preprocess) is PreprocessV1


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"version": 4}, "card.preprocess.version: Input should be 1 or 2 or 3"),
        ({"version": True}, "card.preprocess.version: Input should be an integer"),
        ({"version": 1}, "card.preprocess.mirror: Extra inputs are not permitted"),
        ({"mirror": "upside-down"}, "card.preprocess.mirror: Input should be 'as-is' or 'left-right'"),
        ({"mirror": None}, "card.preprocess.mirror: Input should be 'as-is' or 'left-right'"),
        ({"mean": [0.5]}, "card.preprocess: mean needs 3 value(s), one for each channel of mode RGB"),
    ],
)
def test_a_wrong_field_is_named_as_in_version_1(specs: dict[str, Preprocess], changes: dict[str, object], sentence: str) -> None:
    content = card(preprocess=specs["mirrored"]).model_dump(mode="json")
    content["preprocess"] |= changes
    with pytest.raises(ContractError) as refusal:
        unseal(resealed(content), "here")
    assert str(refusal.value) == f"here: no valid model card: {sentence}. {ADVICE}"


def test_without_its_registration_version_3_is_refused_by_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as registered:
        registered.setitem(VERSIONS, 3, PreprocessV3)
        sealed = seal(card(preprocess=next_version.specs()["mirrored"]))
    with pytest.raises(ContractError) as refusal:
        unseal(sealed, "here")
    assert str(refusal.value) == f"here: no valid model card: card.preprocess.version: Input should be 1 or 2. {ADVICE}"
    with pytest.raises(ValidationError, match="PreprocessV3 is not the specification's version 3"):
        next_version.specs()


def test_the_base_of_the_versions_cannot_be_made_itself() -> None:
    with pytest.raises(ValidationError, match="Preprocess is not the specification's version 1"):
        Preprocess(**dict(SPECS["mnist"]))


def test_changed_fields_are_checked_and_the_version_stays(specs: dict[str, Preprocess]) -> None:
    changed = specs["mirrored"].with_fields(size=(30, 40))
    assert (type(changed), changed.version, changed.size) == (PreprocessV3, 3, (30, 40))
    with pytest.raises(ValidationError, match=r"crop_fraction must be 1\.0 when fit is pad"):
        specs["mirrored"].with_fields(fit="pad")


def test_the_schema_lists_every_version_and_that_of_version_1_does_not_change(monkeypatch: pytest.MonkeyPatch) -> None:
    before = json_schema()
    monkeypatch.setitem(VERSIONS, 3, PreprocessV3)
    schema = json_schema()
    references = ["#/$defs/PreprocessV1", "#/$defs/PreprocessV2", "#/$defs/PreprocessV3"]
    preprocess = schema["properties"]["preprocess"]
    assert preprocess["oneOf"] == [{"$ref": reference} for reference in references]
    assert preprocess["discriminator"] == {"propertyName": "version", "mapping": dict(zip("123", references, strict=True))}
    assert schema["$defs"]["PreprocessV1"] == before["$defs"]["PreprocessV1"]
    assert schema["$defs"]["PreprocessV3"]["properties"]["version"]["const"] == 3
    assert schema["$defs"]["PreprocessV3"]["required"] == [*before["$defs"]["PreprocessV1"]["required"], "mirror"]
    monkeypatch.undo()
    assert json_schema() == before


def test_json_is_read_by_version_too(specs: dict[str, Preprocess]) -> None:
    for spec in (*specs.values(), *SPECS.values(), *SPECS_V2.values()):
        assert type(card()).model_validate_json(card(preprocess=spec).model_dump_json()).preprocess == spec


def test_reformat_and_the_sdk_follow_the_version_of_the_card(specs: dict[str, Preprocess]) -> None:
    assert specs
    fields = dict(colours().preprocess)
    mirrored = PreprocessV3(**{**fields, "version": 3, "mirror": "left-right"})
    image = np.random.default_rng(0).integers(0, 256, (11, 13, 3), dtype=np.uint8)
    assert np.array_equal(reformat(image, mirrored), reformat(image, colours().preprocess)[:, ::-1])
    transport = FakeTransport(colours(preprocess=mirrored), brightest)
    with Classifier("colours", transport=transport) as classifier:
        classifier.classify(image)
    assert np.array_equal(transport.requests[0][0], reformat(image, mirrored))


@pytest.mark.skipif(find_spec("torchvision") is None, reason="the oracle reads lossy files with torchvision")
def test_its_golden_corpus_is_written_confirmed_and_notices_a_mutant(
    specs: dict[str, Preprocess], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = golden.Corpus(3, images=tmp_path, folder=tmp_path / "v3")
    make_corpus.write(corpus)
    assert {path.name for path in corpus.folder.iterdir()} == {"cases.json", "expected.npz"}
    assert corpus.specifications == specs
    assert json.loads((corpus.folder / "cases.json").read_text())["refusals"] == golden.V1.refused
    assert list(corpus.missed(reformat)) == []
    for mutant in (
        Mutant("reformat_v3", "pixels[:, ::-1]", "pixels[::-1]"),
        Mutant("reformat_v3", "pixels[:, ::-1]", "pixels"),
        Mutant("reformat_v3", "spec.mirror == 'left-right'", "True"),
    ):
        monkeypatch.setitem(BY_VERSION, 3, loaded(next_version, mutant).reformat_v3)
        corpus.noticed(reformat)


def test_a_thousand_mutated_cards_of_version_3_are_refused_or_mean_what_they_say(
    specs: dict[str, Preprocess], monkeypatch: pytest.MonkeyPatch
) -> None:
    check_fuzzed([card(preprocess=spec) for spec in (*specs.values(), SPECS["imagenet"])], 1_000, monkeypatch)
