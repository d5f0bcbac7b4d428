"""No byte of a published model changes in silence: it is refused when it is served, or named by verify."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from sightline.card import CARD_KEY, PICTURES_OF
from sightline.errors import ContractError, SightlineError
from sightline.repository.config_text import config_text, parse_config
from sightline.repository.edit import change_instances
from sightline.repository.history import rollback, serve_newest
from sightline.repository.instances import InstanceChanges
from sightline.repository.layout import CONFIG_FILE, LOCK_FILE
from sightline_serving.selection.preflight import select_models

FREE = ("instance_groups", "queue_delay_us", "warm_ups", "policy", "gpu_accelerators", "plan_files", "unknown_settings", "source")
"""What may be set by hand in a model's configuration. Of its parameters, all but the card may."""


def files(repository: Path) -> list[Path]:
    return sorted(path for path in repository.rglob("*") if path.is_file() and path.name != LOCK_FILE)


def flip(file: Path, position: int) -> bytes:
    """Change one bit, and return what the file held before."""
    content = file.read_bytes()
    file.chmod(0o644)
    file.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
    return content


def answers_as_before(file: Path, before: bytes) -> bool:
    """Whether a changed configuration differs only in what may be set by hand."""
    one, two = (parse_config(text.decode(), "test") for text in (before, file.read_bytes()))
    one, two = (replace(config, **{name: getattr(one, name) for name in FREE}) for config in (one, two))
    kept = (CARD_KEY, PICTURES_OF)
    parameters = [{key: value for key, value in config.parameters.items() if key in kept} for config in (one, two)]
    return parameters[0] == parameters[1] and replace(one, parameters={}) == replace(two, parameters={})


def same_numbers(before: bytes, after: bytes) -> bool:
    """Whether two texts are the same JSON: the last digit of seventeen may stand for the same number."""
    try:
        return bool(json.loads(before) == json.loads(after))
    except ValueError:
        return False


@pytest.mark.parametrize("most", [64, pytest.param(400, marks=pytest.mark.slow)])
def test_a_flipped_bit_in_any_file_is_refused(most: int, two_versions: Path, copied: Path) -> None:
    """Anywhere in files of fewer bytes than `most`, somewhere in others."""
    names = [str(file.relative_to(two_versions)) for file in files(two_versions)]
    assert {"mnist/card.json", "mnist/labels.txt", "mnist/warmup/golden", "mnist/2/model.onnx", "mnist/2/report.json"} <= set(names)
    assert {"mnist_image/labels.txt", "mnist_image/1/report.json", "mnist_reformat/1/model.py", "mnist_reformat/warmup/PNG"} <= set(names)
    random, taken = Random(0), []
    for file in files(copied):
        size = file.stat().st_size
        everywhere = range(size) if size < most else sorted({0, size - 1, *random.sample(range(size), 12)})
        for position in everywhere:
            before = flip(file, position)
            try:
                # Version 2 alone is served: of the other, nothing is asked.
                select_models(copied)
            except SightlineError as error:
                if file.parent.name not in str(error) and file.name not in str(error):
                    taken.append(f"{file.relative_to(copied)}: {error}")
            else:
                harmless = (file.name == CONFIG_FILE and answers_as_before(file, before)) or (
                    file.name == "report.json" and same_numbers(before, file.read_bytes())
                )
                if not harmless and "mnist/1/" not in str(file):
                    taken.append(f"{file.relative_to(copied)} at {position} of {size}")
            file.write_bytes(before)
    assert taken == []
    assert select_models(copied).models[0].versions == (2,)


def test_a_published_model_whose_card_was_lost_from_its_configuration_is_refused(copied: Path) -> None:
    for name in ("mnist", "mnist_image", "mnist_reformat"):
        file = copied / name / CONFIG_FILE
        text = file.read_text(encoding="utf-8")
        file.write_text(text.replace("parameters {", "paramdters {"), encoding="utf-8")
        with pytest.raises(
            SightlineError, match=f"config.pbtxt of model {name} in .* holds no model card, though a version of it was published"
        ):
            select_models(copied)
        file.write_text(text, encoding="utf-8")


def test_a_missing_file_beside_the_versions_is_refused(copied: Path) -> None:
    for name in ("mnist/card.json", "mnist/labels.txt", "mnist/warmup/golden", "mnist_image/labels.txt", "mnist_reformat/warmup/JPEG"):
        file = copied / name
        content = file.read_bytes()
        file.unlink()
        with pytest.raises(ContractError, match=f"{name.partition('/')[2]} of model {name.partition('/')[0]} .* was changed after it was"):
            select_models(copied)
        file.write_bytes(content)


def test_a_version_that_lost_its_report_is_refused_unless_somebody_insists(copied: Path) -> None:
    (copied / "mnist" / "2" / "report.json").unlink()
    with pytest.raises(
        ContractError, match=r"^mnist version 2 is not served: it has no report\.json, so that nobody can say whether its files "
    ):
        select_models(copied)
    assert select_models(copied, unreported=True).models[0].versions == (2,)


def test_a_card_that_was_changed_and_hashed_anew_in_the_first_step_is_refused(copied: Path) -> None:
    from sightline import seal, unseal

    file = copied / "mnist_reformat" / "config.pbtxt"
    config = parse_config(file.read_text(), "test")
    card = unseal(config.parameters[PICTURES_OF], "test")
    other = card.model_copy(update={"preprocess": card.preprocess.model_copy(update={"background": (7,)})})
    file.write_text(config_text(replace(config, parameters={PICTURES_OF: seal(other)})))
    with pytest.raises(ContractError, match=r"config\.pbtxt of model mnist_reformat .* holds another card of mnist than that model"):
        select_models(copied)


@pytest.fixture
def edited(copied: Path) -> Iterator[Path]:
    yield copied
    assert [model.name for model in select_models(copied).models] == ["mnist", "mnist_image", "mnist_reformat"]


def test_what_may_be_set_by_hand_or_by_a_command_is_served(edited: Path) -> None:
    change_instances(edited, "mnist", InstanceChanges(instances=3, threads=1))
    rollback(edited, "mnist")
    serve_newest(edited, "mnist")
    file = edited / "mnist_reformat" / "config.pbtxt"
    config = parse_config(file.read_text(), "test")
    file.write_text(config_text(replace(config, instance_groups=(replace(config.instance_groups[0], count=2),))))
