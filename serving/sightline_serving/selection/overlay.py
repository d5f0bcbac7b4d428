"""Builds the model repository that Triton reads: the published one itself, or a folder of links where not all of it is served as it is."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sightline.host.cpu import usable_cores
from sightline.repository.config_text import config_text
from sightline.repository.layout import CONFIG_FILE
from sightline_serving.process.installation import Installation
from sightline_serving.selection.fitting_cores import fit_to_cores, sentence, shows_gpu
from sightline_serving.selection.ort_tensorrt import choose_provider
from sightline_serving.selection.plan_selection import Replacement, choose_plans
from sightline_serving.selection.preflight import Selection
from sightline_serving.selection.shared_reformatting import SharedReformatting, share_reformatting
from sightline_serving.settings import ServeSettings


@dataclass(frozen=True)
class View:
    """What Triton is shown otherwise than it lies in the repository."""

    replacements: Mapping[str, Replacement]
    shared: SharedReformatting | None = None
    """A model that is not there at all."""
    notices: tuple[str, ...] = ()
    """Sentences for people on what is served otherwise."""


def choose_view(selection: Selection, triton: Installation, settings: ServeSettings, given: Mapping[str, Replacement]) -> View:
    """Return which models are not served as they lie there, those `given` among them.

    TensorRT answers by plans or through ONNX Runtime; a model of which another version is served, or which is fitted to the cores of this
    machine, keeps its files. Many models that take encoded images share what reformats.
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
    shared = share_reformatting({name: folder for name, folder in selection.folders.items() if name not in given}, usable_cores())
    if shared is not None:
        replacements |= {name: Replacement(config, {}) for name, config in shared.replaced.items()}
    return View({**given, **replacements, **planned}, shared, tuple(notices))


def overlay(repository: Path, selection: Selection, view: View, folder: Path) -> Path:
    """Return the repository itself, or, if not all of it is to be served as it is, a folder of links to what is, made in `folder`.

    Triton would serve every folder; choosing models is part of its control interface, which stays off.
    """
    names = {model.name for model in selection.models}
    if not view.replacements and names == {entry.name for entry in repository.iterdir() if entry.is_dir()}:
        return repository
    links = folder / "models"
    links.mkdir()
    for name in names:
        source = selection.folders[name].folder
        if name in view.replacements:
            _link_model(links / name, source, view.replacements[name])
        else:
            (links / name).symlink_to(source)
    if view.shared is not None:
        _link_model(links / view.shared.config.name, selection.folders[view.shared.files_of].folder, Replacement(view.shared.config, {}))
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
