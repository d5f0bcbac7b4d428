"""What Triton is shown of a model repository: the repository itself, or a folder of links where not all of it is to be served as it is."""

from collections.abc import Mapping
from pathlib import Path

from sightline_serving.process.installation import Installation
from sightline_serving.selection.ort_tensorrt import choose_provider
from sightline_serving.selection.plan_selection import Swap, choose_plans
from sightline_serving.selection.preflight import CONFIG, Contents, pinned


def choose(
    repository: Path, contents: Contents, triton: Installation, *, plans: bool, version_compatible: bool, engine_cache: Path | None
) -> tuple[dict[str, Swap], list[str]]:
    """The swaps of the models that TensorRT answers for, by their plans or through ONNX Runtime, and sentences on the others."""
    swaps, told = choose_plans(repository, contents, triton, allow_code=version_compatible) if plans else ({}, [])
    if engine_cache is not None:
        more, why_not = choose_provider(repository, contents, triton, engine_cache, swaps)
        return {**swaps, **more}, [*told, *why_not]
    return swaps, told


def view(repository: Path, contents: Contents, swaps: Mapping[str, Swap], folder: Path) -> Path:
    """The repository itself, or, if not all of it is to be served as it is, a folder of links to what is.

    Triton would serve every folder; choosing models is part of its control interface, which stays off.
    """
    names = {model.name for model in contents.models}
    if not contents.instead and not swaps and names == {each.name for each in repository.iterdir() if each.is_dir()}:
        return repository
    shown = folder / "models"
    shown.mkdir()
    for model in contents.models:
        if model.name not in contents.instead and model.name not in swaps:
            (shown / model.name).symlink_to(repository / model.name)
            continue
        swap = swaps.get(model.name) or Swap(pinned(repository / model.name / CONFIG, model.versions), {})
        (shown / model.name).mkdir()
        for each in (repository / model.name).iterdir():
            if each.name != CONFIG and each.name not in map(str, swap.files):
                (shown / model.name / each.name).symlink_to(each)
        for number, files in swap.files.items():
            (shown / model.name / str(number)).mkdir()
            for name, file in files.items():
                (shown / model.name / str(number) / name).symlink_to(file)
        (shown / model.name / CONFIG).write_text(swap.config, encoding="utf-8")
    return shown
