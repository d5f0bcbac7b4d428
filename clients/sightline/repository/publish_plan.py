"""Publishes a TensorRT plan beside the version that it was built from: all at once, and gone without a trace if that fails."""

import hashlib
import os
import shutil
from collections.abc import Mapping
from typing import Final

from sightline.host.files import sync_folder, write_new
from sightline.repository.layout import LAYERS_FILE, PLAN_FILE, PLANS_FOLDER, RECORD_FILE, STAGING_FOLDER
from sightline.repository.publish import Notify, locked, staging
from sightline.repository.read import ModelVersion
from sightline.repository.report import json_text
from sightline.repository.tensorrt_plan import SCHEMA, Plan, PlanRecord, identity, read_plan

REPLACED: Final = "replaced"


def check_writable(version: ModelVersion, notify: Notify = lambda _sentence: None) -> None:
    """Find out before the minutes of a build whether a plan can be put beside the version. Raises PublishError or MachineError."""
    model = version.folder.parent
    with locked(model.parent, notify), staging(model / STAGING_FOLDER):
        pass


def publish_plan(
    version: ModelVersion, plan: bytes, layers: str, record: Mapping[str, object], notify: Notify = lambda _sentence: None
) -> Plan:
    """Write the plan of a version, its layers and its record; one of the same identity is replaced.

    `record` is completed with the schema, the names and the hashes. Whoever serves meanwhile sees the old plan, none, or the new one
    whole. Raises PublishError or MachineError, and nothing was published.
    """
    model = version.folder.parent
    files = {PLAN_FILE: plan, LAYERS_FILE: layers.encode()}
    text = json_text(
        {
            "schema": SCHEMA,
            "model": model.name,
            "version": version.number,
            **record,
            "files": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
        }
    )
    complete = PlanRecord.model_validate_json(text)
    name = identity(complete.fingerprint, complete.profile, complete.hardware_compatibility, version_compatible=complete.version_compatible)
    folder = model / PLANS_FOLDER / version.folder.name / name
    with locked(model.parent, notify), staging(model / STAGING_FOLDER) as stage:
        (stage / name).mkdir()
        for file, content in {**files, RECORD_FILE: text.encode()}.items():
            write_new(stage / name / file, content, mode=0o444)
        sync_folder(stage / name)
        folder.parent.mkdir(parents=True, exist_ok=True)
        if folder.exists():
            os.rename(folder, stage / REPLACED)
        os.rename(stage / name, folder)
        for changed in (folder.parent, folder.parents[1], model):
            sync_folder(changed)
        shutil.rmtree(stage / REPLACED, ignore_errors=True)
    return read_plan(folder)
