"""Builds the model repository that Triton reads: the published one itself, or a folder of links where not all of it is served as it is."""

from collections.abc import Mapping
from pathlib import Path

from sightline.host.cpu import usable_cores
from sightline.repository.config_text import config_text
from sightline.repository.layout import CONFIG_FILE
from sightline_serving.process.installation import Installation
from sightline_serving.selection.fitting_cores import fit_to_cores, sentence, shows_gpu
from sightline_serving.selection.ort_tensorrt import choose_provider
from sightline_serving.selection.plan_selection import Replacement, choose_plans
from sightline_serving.selection.preflight import Selection
from sightline_serving.settings import ServeSettings


def choose_replacements(selection: Selection, triton: Installation, settings: ServeSettings) -> tuple[dict[str, Replacement], list[str]]:
    """Return the replacements of models that are not served as they lie there, and sentences for people on what is served otherwise.

    TensorRT answers by plans or through ONNX Runtime; a model of which another version is served, or which is fitted to the cores of this
    machine, keeps its files.
    """
    replacements = {name: Replacement(selection.folders[name].config, {}) for name in selection.substituted}
    planned, notices = choose_plans(selection, triton, allow_code=settings.version_compatible) if settings.plans else ({}, [])
    if settings.engine_cache is not None:
        provided, refusals = choose_provider(selection, triton, settings.engine_cache, planned)
        planned, notices = {**planned, **provided}, [*notices, *refusals]
    if settings.fit_cores and not shows_gpu(triton.environment()):
        cores = usable_cores()
        fitted = fit_to_cores({name: folder for name, folder in selection.folders.items() if name not in planned}, cores)
        replacements |= {name: Replacement(model.config, {}) for name, model in fitted.items()}
        notices = [*notices, *filter(None, [sentence(fitted, cores)])]
    return {**replacements, **planned}, notices


def overlay(repository: Path, selection: Selection, replacements: Mapping[str, Replacement], folder: Path) -> Path:
    """Return the repository itself, or, if not all of it is to be served as it is, a folder of links to what is, made in `folder`.

    Triton would serve every folder; choosing models is part of its control interface, which stays off.
    """
    names = {model.name for model in selection.models}
    if not replacements and names == {entry.name for entry in repository.iterdir() if entry.is_dir()}:
        return repository
    links = folder / "models"
    links.mkdir()
    for name in names:
        source = selection.folders[name].folder
        if name in replacements:
            _link_model(links / name, source, replacements[name])
        else:
            (links / name).symlink_to(source)
    return links


def _link_model(folder: Path, source: Path, replacement: Replacement) -> None:
    folder.mkdir()
    for entry in source.iterdir():
        if entry.name != CONFIG_FILE and entry.name not in map(str, replacement.files):
            (folder / entry.name).symlink_to(entry)
    for number, files in replacement.files.items():
        (folder / str(number)).mkdir()
        for name, file in files.items():
            (folder / str(number) / name).symlink_to(file)
    (folder / CONFIG_FILE).write_text(config_text(replacement.config), encoding="utf-8")
