"""Gives models sensible instances and threads on a machine with other cores than the one that exported them.

`sightline export` chooses them by what a core computes and how many there are, and writes into `report.json` by what it chose. Here the
same rule is asked again, for the cores of this machine. The repository never changes for it: Triton reads another `config.pbtxt`. What
somebody set, by `tune`, by an option or by hand, is left alone, and so is what says nothing of how it was chosen.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from sightline.errors import MachineError
from sightline.host.gpu import DRIVER_FILES, machine
from sightline.repository.config import ModelConfig
from sightline.repository.instances import InstanceSettings, instances_of, set_on_cores, with_instances
from sightline.repository.read import ModelFolder
from sightline.repository.report import ShapeReport, VersionReport
from sightline.repository.shape import choose


@dataclass(frozen=True)
class Fitted:
    """How a model is served on this machine, and on which it was decided that it be served otherwise."""

    config: ModelConfig
    exported_on: int
    """Cores of the machine that exported it."""

    @property
    def settings(self) -> InstanceSettings:
        """What it is served with here."""
        return instances_of(self.config)


def fit_to_cores(folders: Mapping[str, ModelFolder], cores: int) -> dict[str, Fitted]:
    """Return those of the models (by name) that are served otherwise on `cores` cores than their `config.pbtxt` says, and how."""
    fitted = {name: fitted_to(folder, cores) for name, folder in folders.items()}
    return {name: model for name, model in fitted.items() if model is not None}


def fitted_to(folder: ModelFolder, cores: int) -> Fitted | None:
    """Return how one model is served on `cores` cores; None if that is what its `config.pbtxt` says."""
    config = folder.config
    if set_on_cores(config) is not None:
        return None
    # Newest first: a later version keeps the configuration of the first, and has no figures of its own.
    for report in (version.described for version in reversed(folder.versions)):
        if report is not None and report.shape is not None and _chosen(config, report, report.shape) == config:
            here = _chosen(config, report, report.shape.on(cores))
            return None if here == config else Fitted(here, report.shape.cores)
    return None


def _chosen(config: ModelConfig, report: VersionReport, figures: ShapeReport) -> ModelConfig:
    return with_instances(config, choose(figures, report.model_bytes, report.flop_per_image))


def sentence(fitted: Mapping[str, Fitted], cores: int) -> str:
    """Say what is served otherwise than it was published; empty if nothing is."""
    if not fitted:
        return ""
    parts = [f"{name}, exported on {_cores(model.exported_on)}, as {model.settings}" for name, model in sorted(fitted.items())]
    return (
        f"fitted to this machine's {_cores(cores)}: {'; '.join(parts)}. config.pbtxt stays as it was published: `--no-fit-cores` serves by "
        "it, and `sightline tune` measures what is best here"
    )


def shows_gpu(environment: Mapping[str, str]) -> bool:
    """Whether programs with this environment see an NVIDIA GPU: instances then share it, and cores decide little."""
    if not any(file.exists() for file in DRIVER_FILES):
        return False
    try:
        return bool(machine(environment).gpus)
    except MachineError:
        return False


def _cores(count: int) -> str:
    return f"{count} core{'s' * (count != 1)}"
