"""What Triton is shown of a model repository: the repository itself, or a folder of links where not all of it is to be served as it is."""

from collections.abc import Mapping
from pathlib import Path

from sightline.repository.config_text import config_text
from sightline.repository.layout import CONFIG_FILE
from sightline_serving.process.installation import Installation
from sightline_serving.selection.ort_tensorrt import choose_provider
from sightline_serving.selection.plan_selection import Replacement, choose_plans
from sightline_serving.selection.preflight import Selection, pinned


def choose_replacements(
    selection: Selection, triton: Installation, *, plans: bool, version_compatible: bool, engine_cache: Path | None
) -> tuple[dict[str, Replacement], list[str]]:
    """Return the replacements of models that TensorRT answers for, by their plans or through ONNX Runtime, and sentences on the others."""
    replacements, notices = choose_plans(selection, triton, allow_code=version_compatible) if plans else ({}, [])
    if engine_cache is not None:
        with_provider, refusals = choose_provider(selection, triton, engine_cache, replacements)
        return {**replacements, **with_provider}, [*notices, *refusals]
    return replacements, notices


def overlay(repository: Path, selection: Selection, replacements: Mapping[str, Replacement], folder: Path) -> Path:
    """Return the repository itself, or, if not all of it is to be served as it is, a folder of links to what is, made in `folder`.

    Triton would serve every folder; choosing models is part of its control interface, which stays off.
    """
    names = {model.name for model in selection.models}
    unchanged = not selection.substituted and not replacements
    if unchanged and names == {entry.name for entry in repository.iterdir() if entry.is_dir()}:
        return repository
    links = folder / "models"
    links.mkdir()
    for model in selection.models:
        source = selection.folders[model.name]
        if model.name not in selection.substituted and model.name not in replacements:
            (links / model.name).symlink_to(source.folder)
            continue
        replacement = replacements.get(model.name) or Replacement(pinned(source, model.versions).config, {})
        (links / model.name).mkdir()
        for entry in source.folder.iterdir():
            if entry.name != CONFIG_FILE and entry.name not in map(str, replacement.files):
                (links / model.name / entry.name).symlink_to(entry)
        for number, files in replacement.files.items():
            (links / model.name / str(number)).mkdir()
            for name, file in files.items():
                (links / model.name / str(number) / name).symlink_to(file)
        (links / model.name / CONFIG_FILE).write_text(config_text(replacement.config), encoding="utf-8")
    return links
