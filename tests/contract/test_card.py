"""The model card: one sealed text that comes back as it was, and that nobody can change, extend or shorten unnoticed."""

import hashlib
import json
import string
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from sightline.card import MAX_SEALED_BYTES, ModelCard, json_schema, seal, unseal, visible
from sightline.errors import ContractError
from sightline.preprocess import PreprocessV1
from support.cards import resealed
from support.specs import SPECS, SPECS_V2, card, spec

COLOUR = "Input should be 'auto' or a list of whole numbers from 0 to 255, one a channel"

DOCS = Path(__file__).resolve().parents[2] / "docs"

SEALED = (
    '{"card":{"description":"Fresh and rotten fruit.\\nFor the tests.","input":"pixels","labels":["fresh apple","rotten \\"banana\\"",'
    '"Ährenfäule","腐ったオレンジ"],"max_batch_size":64,"name":"fruit","output":"probabilities","preprocess":{"background":[255,255,255],'
    '"crop_fraction":0.875,"exif":"apply","fit":"crop","mean":[0.485,0.456,0.406],"mode":"RGB","polarity":"as-is","resample":"bilinear",'
    '"size":[20,20],"std":[0.229,0.224,0.225],"version":1}},"sha256":"%s"}'
)
SHA256 = "8c6e2527b31ef525f19bfd50d75d2b2924a97f74c41398542908fbc8f47f1561"

letters = st.characters(exclude_categories=("Cc", "Cf", "Cs", "Zl", "Zp"), include_characters="\u200c\u200d")
one_line = st.text(letters, min_size=1, max_size=40).map(str.strip).filter(visible)
labels = st.lists(one_line, min_size=2, max_size=20, unique_by=visible).map(tuple)
prose = st.text(st.characters(exclude_categories=("Cc", "Cs"), include_characters="\n\t"), max_size=200)


def refusal(text: str | bytes, where: str = "card.json of model fruit") -> str:
    with pytest.raises(ContractError) as caught:
        unseal(text, where)
    assert str(caught.value).startswith(f"{where}: no valid model card: ")
    assert str(caught.value).endswith(". Export the model again, or restore the copy that was published.")
    return str(caught.value).removeprefix(f"{where}: no valid model card: ").split(". Export the model again")[0]


def test_the_sealed_text_is_the_same_for_ever() -> None:
    assert seal(card()) == SEALED % SHA256
    assert card().sha256 == SHA256
    assert unseal(SEALED % SHA256, "here") == card()


def test_the_hash_can_be_checked_with_a_text_tool_alone() -> None:
    sealed = seal(card()).encode()
    assert hashlib.sha256(sealed[len(b'{"card":') : -len(',"sha256":""}') - 64]).hexdigest() == SHA256


@settings(max_examples=300, deadline=None, derandomize=True)
@given(labels, prose, st.sampled_from(sorted(SPECS)), st.integers(1, 4096))
def test_a_card_of_any_labels_and_description_comes_back_as_it_was(
    labels: tuple[str, ...], description: str, title: str, max_batch_size: int
) -> None:
    written = card(labels=labels, description=description, preprocess=SPECS[title], max_batch_size=max_batch_size)
    sealed = seal(written)
    assert unseal(sealed, "here") == written
    assert unseal(sealed.encode(), "here") == written
    assert seal(unseal(sealed, "here")) == sealed
    assert "\n" not in sealed


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(st.floats(0, 1), min_size=3, max_size=3).map(tuple), st.lists(st.floats(1e-6, 1000), min_size=3, max_size=3).map(tuple))
def test_every_mean_and_std_comes_back_to_the_last_bit(mean: Any, std: Any) -> None:
    written = card(preprocess=spec(mean=mean, std=std))
    read = unseal(seal(written), "here").preprocess
    assert [number.hex() for number in read.mean + read.std] == [number.hex() for number in mean + std]


def test_one_digit_of_a_mean_changed_is_refused() -> None:
    tampered = seal(card()).replace("0.456", "0.457")
    other = card(preprocess=spec(**{**SPECS["imagenet"].model_dump(), "mean": (0.485, 0.457, 0.406)})).sha256
    assert refusal(tampered) == (
        f"it was changed after it was written: the sha256 beside it is {SHA256[:12]}…, the card's own is {other[:12]}…"
    )


@pytest.mark.parametrize("field", ModelCard.model_fields)
def test_a_card_without_a_field_is_refused_by_its_name(field: str) -> None:
    content = card().model_dump(mode="json")
    del content[field]
    assert refusal(resealed(content)) == f"card.{field}: Field required"


@pytest.mark.parametrize("field", PreprocessV1.model_fields)
def test_a_specification_without_a_field_is_refused_by_its_name(field: str) -> None:
    content = card().model_dump(mode="json")
    del content["preprocess"][field]
    assert refusal(resealed(content)) == f"card.preprocess.{field}: Field required"


def test_no_field_that_changes_pixels_has_a_default() -> None:
    assert [name for name, field in PreprocessV1.model_fields.items() if not field.is_required()] == []


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        (("gamma",), 2.2, "card.gamma: Extra inputs are not permitted"),
        (("preprocess", "gamma"), 2.2, "card.preprocess.gamma: Extra inputs are not permitted"),
        (("preprocess", "\x1b[2Jq"), 2.2, r"card.preprocess.\x1b[2Jq: Extra inputs are not permitted"),
        (("preprocess", "version"), 3, "card.preprocess.version: Input should be 1 or 2"),
        (("preprocess", "version"), 2, "card.preprocess.alpha_background: Field required (and 3 more)"),
        (("preprocess", "version"), True, "card.preprocess.version: Input should be an integer"),
        (("preprocess", "version"), 1.0, "card.preprocess.version: Input should be an integer"),
        (("preprocess", "version"), "1", "card.preprocess.version: Input should be an integer"),
        (("preprocess", "mode"), "BGR", "card.preprocess.mode: Input should be 'L' or 'RGB'"),
        (("preprocess", "size"), [28], "card.preprocess.size[1]: Field required"),
        (("preprocess", "size"), [28, 0], "card.preprocess.size[1]: Input should be greater than or equal to 1"),
        (("preprocess", "size"), [28, 4097], "card.preprocess.size[1]: Input should be less than or equal to 4096"),
        (("preprocess", "size"), [28, 28.0], "card.preprocess.size[1]: Input should be a valid integer"),
        (("preprocess", "size"), [28, True], "card.preprocess.size[1]: Input should be a valid integer"),
        (("preprocess", "size"), 28, "card.preprocess.size: Input should be a valid list"),
        (("preprocess", "fit"), "squash", "card.preprocess.fit: Input should be 'stretch', 'crop' or 'pad'"),
        (("preprocess", "crop_fraction"), 1.01, "card.preprocess.crop_fraction: Input should be less than or equal to 1"),
        (("preprocess", "crop_fraction"), 5e-324, "card.preprocess.crop_fraction: Input should be greater than or equal to 0.1"),
        (("preprocess", "fit"), "pad", "card.preprocess: crop_fraction must be 1.0 when fit is pad"),
        (("preprocess", "background"), [0, 0], "card.preprocess: background needs 3 value(s), one for each channel of mode RGB"),
        (("preprocess", "background"), [0, 0, 256], "card.preprocess.background[2]: Input should be less than or equal to 255"),
        (("preprocess", "exif"), True, "card.preprocess.exif: Input should be 'apply' or 'ignore'"),
        (("preprocess", "polarity"), None, "card.preprocess.polarity: Input should be 'as-is' or 'light-on-dark'"),
        (("preprocess", "mean"), [0.5], "card.preprocess: mean needs 3 value(s), one for each channel of mode RGB"),
        (("preprocess", "mean"), [0.5, float("nan"), 0.5], "card.preprocess.mean[1]: Input should be a finite number"),
        (("preprocess", "mean"), [0.5, float("inf"), 0.5], "card.preprocess.mean[1]: Input should be a finite number"),
        (("preprocess", "mean"), [0.5, 123.68, 0.5], "card.preprocess.mean[1]: Input should be less than or equal to 1"),
        (("preprocess", "mean"), [0.5, 10**400, 0.5], "card.preprocess.mean[1]: Input should be a finite number"),
        (("preprocess", "mean"), ["0.5", 0.5, 0.5], "card.preprocess.mean[0]: Input should be a valid number"),
        (("preprocess", "std"), [0.0, 1.0, 1.0], "card.preprocess.std[0]: Input should be greater than or equal to 0.000001"),
        (("preprocess",), [], "card.preprocess: Input should be a valid dictionary or instance of Preprocess"),
        (("labels",), ["one"], "card.labels: List should have at least 2 items after validation, not 1"),
        (("labels",), ["a", "b", "a"], "card: labels[2] repeats labels[0]: two classes cannot share a name"),
        (
            ("labels",),
            ["a", "b\nc"],
            "card: labels[1] must be one line of text without spaces around it, since labels.txt holds a line a label",
        ),
        (
            ("labels",),
            ["a", "a\u200b"],
            "card: labels[1] looks the same as labels[0]: two classes cannot share a name",
        ),
        (("labels",), ["a", "\u200d"], "card: labels[1] holds nothing but letters that nobody sees"),
        (("labels",), ["a", "b\u202ec"], "card: labels[1] holds the letter U+202E, which changes the order in which text is shown"),
        (("labels",), ["a", "b", ""], "card.labels[2]: String should have at least 1 character"),
        (("labels",), ["a", "b", 7], "card.labels[2]: Input should be a valid string"),
        (("max_batch_size",), 0, "card.max_batch_size: Input should be greater than or equal to 1"),
        (("max_batch_size",), 10**30, "card.max_batch_size: Input should be a valid integer"),
        (("description",), "\x1b]0;owned\x07", "card: description holds a control character, which could change what a terminal shows"),
        (("description",), "x" * 4001, "card.description: String should have at most 4000 characters"),
        (("output",), "pixels", "card: input and output need two names, not pixels twice"),
    ],
)
def test_a_wrong_value_is_refused_with_its_place(path: tuple[str, ...], value: Any, sentence: str) -> None:
    content = card().model_dump(mode="json")
    inside = content
    for step in path[:-1]:
        inside = inside[step]
    inside[path[-1]] = value
    refused = refusal(resealed(content))
    assert refused == sentence


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"alpha_background": "none"}, f"card.preprocess.alpha_background: {COLOUR}"),
        ({"alpha_background": [256]}, f"card.preprocess.alpha_background: {COLOUR}"),
        ({"alpha_background": None}, f"card.preprocess.alpha_background: {COLOUR}"),
        ({"alpha_background": [0, 0, 0]}, "card.preprocess: alpha_background needs auto or 1 value(s), one for each channel of mode L"),
        ({"levels": "auto"}, "card.preprocess.levels: Input should be 'as-is' or 'document'"),
        ({"frame": "box"}, "card.preprocess.frame: Input should be 'as-is' or 'ink-box'"),
        ({"decode": True}, "card.preprocess.decode: Input should be 'full' or 'dct'"),
        ({"levels": "as-is"}, "card.preprocess: frame can be ink-box only when levels is document, which tells ink from paper"),
        (
            {"fit": "crop"},
            "card.preprocess: frame can be ink-box only when fit is pad, not crop: the box keeps the strokes' aspect ratio",
        ),
        ({"version": 1}, "card.preprocess.alpha_background: Extra inputs are not permitted (and 3 more)"),
    ],
)
def test_a_wrong_value_of_version_2_is_refused_with_its_place(changes: dict[str, Any], sentence: str) -> None:
    content = card(preprocess=SPECS_V2["digits"]).model_dump(mode="json")
    content["preprocess"] |= changes
    assert refusal(resealed(content)) == sentence


def test_a_crop_of_an_image_scaled_beyond_reason_is_refused() -> None:
    content = card().model_dump(mode="json")
    content["preprocess"] |= {"size": [4096, 4096], "crop_fraction": 0.4}
    assert refusal(resealed(content)) == "card.preprocess: size / crop_fraction is more than 8192 pixels"


def test_of_several_problems_the_version_is_named_first() -> None:
    content = card().model_dump(mode="json")
    content["preprocess"] |= {"version": 3, "mode": "LAB", "gamma": 1.0}
    assert refusal(resealed(content)) == "card.preprocess.version: Input should be 1 or 2"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "not JSON (Expecting value: line 1 column 1 (char 0))"),
        (b"", "not JSON (Expecting value: line 1 column 1 (char 0))"),
        ("{", "not JSON (Expecting property name enclosed in double quotes: line 1 column 2 (char 1))"),
        (b'{"card": "\xff"}', "not JSON ('utf-8' codec can't decode byte 0xff in position 10: invalid start byte)"),
        ("\ufeff{}", "not JSON (Unexpected UTF-8 BOM (decode using utf-8-sig): line 1 column 1 (char 0))"),
        ("[" * 100_000, "not JSON that a card may have (nested too deeply)"),
        ('{"card":' * 100_000, "not JSON that a card may have (nested too deeply)"),
        ("null", 'expected an object with exactly the members "card" and "sha256"'),
        ("[]", 'expected an object with exactly the members "card" and "sha256"'),
        ('{"card": {}}', 'expected an object with exactly the members "card" and "sha256"'),
        ('{"card": {}, "sha256": "", "signature": ""}', 'expected an object with exactly the members "card" and "sha256"'),
        ('{"card": {}, "card": {}, "sha256": ""}', 'not JSON (the member "card" of an object is given twice)'),
        (
            json.dumps({f"{number}": 0 for number in range(101)}),
            "not JSON (an object of 101 members, more than the 100 that one in a card may have)",
        ),
        ('{"card": 5, "sha256": ""}', "card: Input should be a valid dictionary or instance of ModelCard"),
        ("x" * (MAX_SEALED_BYTES + 1), "the text is 16,777,217 bytes long, more than the 16,777,216 that a card may have"),
        ("ä" * (MAX_SEALED_BYTES // 2 + 1), "the text is 16,777,218 bytes long, more than the 16,777,216 that a card may have"),
    ],
    ids=lambda value: repr(value[:24]),
)
def test_a_text_that_is_no_sealed_card_is_refused(text: str | bytes, sentence: str) -> None:
    assert refusal(text) == sentence


@pytest.mark.parametrize("sha256", [None, 7, [], "", "0" * 64, SHA256.upper(), SHA256[:-1], "\x1b[2J"])
def test_a_hash_that_does_not_fit_is_refused(sha256: Any) -> None:
    text = json.dumps({"card": card().model_dump(mode="json"), "sha256": sha256})
    assert refusal(text).startswith("it was changed after it was written: the sha256 beside it is ")
    assert refusal(text).isprintable()


def test_the_order_and_spacing_of_the_text_do_not_matter_to_its_meaning() -> None:
    loose = json.dumps(json.loads(seal(card())), indent=3, sort_keys=False)
    assert unseal(loose, "here") == card()


@pytest.mark.parametrize(
    "name",
    [
        *("../x", "..", ".", "/etc/passwd", "a/b", "a\\b", "", "-rf", "_hidden", ".hidden", "a b", "a.b", "a\n", "a\x00", "a" * 65),
        *("ｍnist", "mnıst", "é", "mnist\u200b", "\u202etsinm", "МNIST"),
        *(f"a{letter}" for letter in string.punctuation if letter not in "-_"),
    ],
)
def test_a_name_cannot_escape_into_a_path_or_a_command(name: str) -> None:
    with pytest.raises(ValidationError):
        card(name=name)
    content = card().model_dump(mode="json") | {"name": name}
    assert refusal(resealed(content)).startswith("card.name: String should match pattern")


@pytest.mark.parametrize("tensor", ["", "1st", "a-b", "a b", "a\n", 'a"', "ä", "a" * 65, "../a"])
@pytest.mark.parametrize("field", ["input", "output"])
def test_a_tensor_name_is_an_identifier(field: str, tensor: str) -> None:
    content = card().model_dump(mode="json") | {field: tensor}
    assert refusal(resealed(content)).startswith(f"card.{field}: String should match pattern")


def test_a_card_cannot_be_changed_once_it_is_made() -> None:
    original = card()
    with pytest.raises(ValidationError):
        original.name = "other"
    with pytest.raises(ValidationError):
        original.preprocess.version = 2


def test_the_schema_in_the_documentation_is_the_code_s_own() -> None:
    written = json.loads((DOCS / "model-card.schema.json").read_text(encoding="utf-8"))
    assert written == json_schema(), "run: python docs/make_schema.py"


def test_every_field_is_documented_where_it_stands_and_in_the_documentation() -> None:
    page = (DOCS / "model-card.md").read_text(encoding="utf-8") + (DOCS / "preprocessing.md").read_text(encoding="utf-8")
    schema = json_schema()
    for members in (schema["properties"], schema["$defs"]["PreprocessV1"]["properties"], schema["$defs"]["PreprocessV2"]["properties"]):
        for name, member in members.items():
            assert member.get("description"), name
            assert f"| `{name}` |" in page, f"{name} is missing from the tables of docs/model-card.md and docs/preprocessing.md"


def test_the_card_shown_in_the_documentation_is_valid() -> None:
    page = (DOCS / "model-card.md").read_text(encoding="utf-8")
    example = page.split("```json\n")[1].split("```")[0]
    assert unseal(example, "docs/model-card.md").name == "mnist"
