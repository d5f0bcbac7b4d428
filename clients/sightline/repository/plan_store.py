"""Publishes a plan beside the version that it was built from: all at once, and gone without a trace if that fails."""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from sightline.repository.publish import STAGING, Notify, locked, staging, sync_folder, write_new
from sightline.repository.tensorrt_plan import FOLDER, LAYERS_FILE, PLAN_FILE, RECORD_FILE, SCHEMA, Plan, Record, identity, read_plan

REPLACED: Final = "replaced"


def check_writable(version: Path, notify: Notify = lambda _sentence: None) -> None:
    """Find out before the minutes of a build whether a plan can be put beside the version. Raises RepositoryError."""
    with locked(version.parents[1], notify), staging(version.parent / STAGING):
        pass


def publish_plan(version: Path, plan: bytes, layers: str, record: Mapping[str, Any], notify: Notify = lambda _sentence: None) -> Plan:
    """Write the plan of the version in the folder `version`, its layers and its record; one of the same identity is replaced.

    `record` is completed with the schema, the names and the hashes. Whoever serves meanwhile sees the old plan, none, or the new one
    whole. Raises RepositoryError, and nothing was published.
    """
    files = {PLAN_FILE: plan, LAYERS_FILE: layers.encode()}
    complete = {
        "schema": SCHEMA,
        "model": version.parent.name,
        "version": int(version.name),
        **record,
        "files": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
    }
    text = json.dumps(complete, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    believed = Record.model_validate_json(text)
    name = identity(believed.fingerprint, believed.profile, believed.hardware_compatibility, version_compatible=believed.version_compatible)
    model = version.parent
    folder = model / FOLDER / version.name / name
    with locked(model.parent, notify), staging(model / STAGING) as stage:
        (stage / name).mkdir()
        for file, content in {**files, RECORD_FILE: text.encode()}.items():
            write_new(stage / name / file, content, mode=0o444)
        sync_folder(stage / name)
        folder.parent.mkdir(parents=True, exist_ok=True)
        if folder.exists():
            os.rename(folder, stage / REPLACED)
        os.rename(stage / name, folder)
        for each in (folder.parent, folder.parents[1], model):
            sync_folder(each)
        shutil.rmtree(stage / REPLACED, ignore_errors=True)
    return read_plan(folder)
