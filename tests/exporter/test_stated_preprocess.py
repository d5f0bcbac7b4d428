"""What a user states of the preprocessing is checked by the specification's own types, and wins over what a library says."""

import json
from pathlib import Path
from typing import Annotated, Literal

import pytest

from sightline.card import seal
from sightline.errors import ContractError, DataError, UsageError
from sightline.preprocess import VERSIONS, Byte, Preprocess, Version
from sightline_export.sources.settled_preprocess import in_words
from sightline_export.sources.stated_preprocess import NOTHING, StatedPreprocess, read_statement
from support.specs import card, spec

BASE = spec(
    size=(288, 288),
    fit="crop",
    crop_fraction=0.9,
    resample="bicubic",
    background=255,
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
)

KEYS = ", ".join(dict.fromkeys(key for member in VERSIONS.values() for key in member.model_fields))

WHOLE = "version=1 mode=RGB size=224 fit=stretch crop_fraction=1 resample=bilinear background=0 exif=ignore polarity=as-is mean=0 std=1"


def changed(*texts: str) -> Preprocess:
    return read_statement(texts).of(BASE)


def refusal(*texts: str, base: Preprocess | None = BASE) -> str:
    with pytest.raises(UsageError) as refused:
        read_statement(texts).of(base)
    return str(refused.value)


def test_the_commonest_tutorial_is_four_fields() -> None:
    expected = BASE.with_fields(fit="stretch", crop_fraction=1.0, size=(224, 224), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    assert changed("fit=stretch", "mean=0", "std=1", "size=224") == expected
    # In one text too, and in any order.
    assert changed("size=224 std=1 mean=0", "fit=stretch") == expected


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ("size=224", "size", (224, 224)),
        ("size=192x320", "size", (192, 320)),
        ("size=192,320", "size", (192, 320)),
        ("mean=0.485,0.456,0.406", "mean", (0.485, 0.456, 0.406)),
        ("mean=0.5", "mean", (0.5, 0.5, 0.5)),
        ("mean=1", "mean", (1.0, 1.0, 1.0)),
        ("std=127.5/255", "std", (0.5, 0.5, 0.5)),
        ("background=124,116,104", "background", (124, 116, 104)),
        ("background=0", "background", (0, 0, 0)),
        ("crop_fraction=252/288", "crop_fraction", 0.875),
        ("resample=lanczos", "resample", "lanczos"),
        ("exif=ignore", "exif", "ignore"),
        ("polarity=light-on-dark", "polarity", "light-on-dark"),
        ("version=1", "version", 1),
    ],
)
def test_a_field_is_read_as_its_type_has_it_and_the_others_stay(text: str, field: str, value: object) -> None:
    spec = changed(text)
    assert getattr(spec, field) == value
    assert spec == BASE.with_fields(**{field: value})
    # As JSON a card must be the same, however the number was written.
    assert spec.model_dump_json() == BASE.with_fields(**{field: value}).model_dump_json()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("resize=224", f"a preprocessing has no field 'resize': it has {KEYS}"),
        ("fit=squash", "fit=squash states no fit: Input should be 'stretch', 'crop' or 'pad'"),
        ("size=0", "size=0 states no size: Input should be greater than or equal to 1"),
        ("size=big", "size=big states no size: Input should be a valid tuple"),
        ("size=", "size= states no size: Input should be a valid tuple"),
        ("size=224.5", "size=224.5 states no size: Input should be a valid integer"),
        ("mean=128", "mean=128 states no mean: Input should be less than or equal to 1"),
        ("mean=nan", "mean=nan states no mean: Input should be "),
        ("mean=0.5,0.5", "what was stated is no preprocessing: mean needs 3 value(s), one for each channel of mode RGB"),
        ("std=0", "std=0 states no std: Input should be greater than or equal to 0.000001"),
        ("std=1/0", "std=1/0 states no std: Input should be a valid tuple"),
        ("crop_fraction=1.15", "crop_fraction=1.15 states no crop_fraction: Input should be less than or equal to 1"),
        ("fit=stretch crop_fraction=0.9", "what was stated is no preprocessing: crop_fraction must be 1.0 when fit is stretch"),
        ("mode=L", "what was stated is no preprocessing: background needs 1 value(s), one for each channel of mode L"),
        ("size=224 size=256", "size is stated twice, as '224' and '256'"),
        ("version=99", f"version=99 is no version of the preprocessing specification: it has {', '.join(map(str, VERSIONS))}"),
        ("version=one", f"version=one is no version of the preprocessing specification: it has {', '.join(map(str, VERSIONS))}"),
        ("none.json", f"'none.json' states no preprocessing: it is neither a file nor KEY=VALUE with a KEY of {KEYS}"),
        ("", f"'' states no preprocessing: it is neither a file nor KEY=VALUE with a KEY of {KEYS}"),
        ("./a=b.json", f"'./a=b.json' states no preprocessing: it is neither a file nor KEY=VALUE with a KEY of {KEYS}"),
    ],
)
def test_a_wrong_field_or_value_is_refused_with_what_there_is(text: str, sentence: str) -> None:
    assert refusal(text).startswith(sentence)


def test_a_crop_of_what_was_stretched_says_how_much_is_cut_off() -> None:
    stretched = spec(size=(224, 224))
    assert refusal("fit=crop", base=stretched) == (
        "fit=crop needs crop_fraction too, the side of the crop as a part of the scaled image's shorter side: crop_fraction=224/256, or 1 "
        "if the shorter side is scaled to the crop's"
    )
    assert read_statement(["fit=crop crop_fraction=224/256"]).of(stretched).crop_fraction == 0.875


def test_everything_can_be_stated_with_nothing_behind_it() -> None:
    statement = read_statement([WHOLE])
    assert statement.complete
    expected = spec(size=(224, 224), exif="ignore", mean=0.0, std=1.0)
    assert statement.of(None) == expected
    without = read_statement([WHOLE.replace("crop_fraction=1 ", "")])
    assert without.complete
    assert without.of(None) == expected
    partial = read_statement([WHOLE.replace("exif=ignore ", "")])
    assert not partial.complete
    with pytest.raises(UsageError, match=r"^the preprocessing that was stated needs exif too: state it$"):
        partial.of(None)
    assert (NOTHING.complete, NOTHING.of(BASE)) == (False, BASE)


class PreprocessV99(Preprocess):
    """A version with fields that this program has not heard of."""

    version: Annotated[Literal[99], Version]
    levels: Literal["as-is", "document"]
    alpha_background: tuple[Byte, ...] | Literal["auto"]


def test_a_new_versions_fields_are_read_by_their_types_and_what_else_it_needs_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(VERSIONS, 99, PreprocessV99)
    assert refusal("levels=document") == (
        "levels is a field of version 2 or 99 of the preprocessing specification: state version=2 too, and what else it needs"
    )
    assert refusal("version=99 levels=document") == "the preprocessing that was stated needs alpha_background too: state it"
    assert refusal("version=99 levels=film alpha_background=0").startswith("levels=film states no levels: Input should be 'as-is' or 'doc")
    for text, value in (("auto", "auto"), ("7", (7, 7, 7)), ("1,2,3", (1, 2, 3))):
        stated = changed(f"version=99 levels=document alpha_background={text}")
        assert isinstance(stated, PreprocessV99)
        assert (stated.levels, stated.alpha_background, stated.size) == ("document", value, BASE.size)
        assert read_statement(["levels=as-is"]).of(stated) == stated.with_fields(levels="as-is")
        assert changed("version=1") == BASE
    assert in_words(changed("version=99 levels=document alpha_background=auto")).endswith(", levels=document, alpha_background=auto")


FILES = {
    "spec.json": BASE.model_dump_json(),
    "card.json": seal(card(preprocess=BASE)),
    "config.json": json.dumps(
        {
            "architecture": "resnet50",
            "num_classes": 2,
            "pretrained_cfg": {
                "input_size": [3, 288, 288],
                "interpolation": "bicubic",
                "crop_pct": 0.9,
                "crop_mode": "center",
                "mean": [0.485, 0.456, 0.406],
                "std": [0.229, 0.224, 0.225],
            },
        }
    ),
    "preprocessor_config.json": json.dumps(
        {
            "image_processor_type": "ViTImageProcessor",
            "size": {"height": 288, "width": 288},
            "resample": 3,
            "image_mean": [0.485, 0.456, 0.406],
            "image_std": [0.229, 0.224, 0.225],
        }
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_states_everything_and_fields_beside_it_change_it(name: str, tmp_path: Path) -> None:
    pytest.importorskip("timm")
    pytest.importorskip("transformers")
    (tmp_path / name).write_text(FILES[name])
    statement = read_statement([str(tmp_path / name)])
    expected = BASE.with_fields(fit="stretch", crop_fraction=1.0) if name.startswith("pre") else BASE
    assert (statement.complete, statement.file, statement.of(None)) == (True, name, expected)
    both = read_statement(["exif=ignore", str(tmp_path / name)])
    assert both.of(None) == expected.with_fields(exif="ignore")
    # A file is whole: what a library says does not matter.
    assert statement.of(spec()) == expected


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{}", "states no preprocessing: it is none of a preprocessing specification, a card.json, timm's config.json or Hugging Face's "),
        ("[1]", "the preprocessing cannot be read: a JSON list where an object was expected"),
        ("no", "the preprocessing cannot be read: not JSON ("),
        (BASE.model_dump_json().replace("crop", "squash", 1), "states no preprocessing: "),
        (BASE.model_dump_json().replace('"version":1', '"version":99'), "states no preprocessing: version: Input should be 1"),
        (BASE.model_dump_json().replace('"exif"', '"exfi"'), "states no preprocessing: "),
    ],
)
def test_a_file_that_states_none_is_refused_with_the_reason(content: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text(content)
    assert refusal(str(tmp_path / "mine.json")).startswith(
        (f"{tmp_path / 'mine.json'}: {sentence}", f"{tmp_path / 'mine.json'} {sentence}")
    )


def test_a_card_that_was_changed_and_a_damaged_config_are_refused(tmp_path: Path) -> None:
    (tmp_path / "card.json").write_text(FILES["card.json"].replace("0.485", "0.5"))
    with pytest.raises(ContractError, match="it was changed after it was written"):
        read_statement([str(tmp_path / "card.json")])
    (tmp_path / "config.json").write_text(FILES["config.json"].replace('"num_classes": 2', '"num_classes": "two"'))
    with pytest.raises(DataError, match=r"config\.json: damaged: num_classes: Input should be a valid integer"):
        read_statement([str(tmp_path / "config.json")])
    (tmp_path / "config.json").write_text(FILES["config.json"].replace("[3, 288, 288]", '"all"'))
    with pytest.raises(UsageError, match=r"is none that timm could have written: input_size, interpolation, "):
        read_statement([str(tmp_path / "config.json")])


def test_two_files_cannot_both_be_meant() -> None:
    assert refusal("a.json", "b.json") == "one file can state the preprocessing, not both 'a.json' and 'b.json'"
    assert StatedPreprocess() == NOTHING
