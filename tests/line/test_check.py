"""`check=True` over the whole line: honest versions in every precision pass, and the same network trained anew does not."""

import shutil
from pathlib import Path

import pytest

from sightline import Classifier, ModelError, cli
from sightline.repository.config import VersionPolicy
from sightline.repository.edit import set_policy
from sightline.repository.read import model_named
from sightline_serving.server import start_server
from sightline_serving.settings import FREE_PORTS, ServeSettings
from support.line import Line

pytestmark = pytest.mark.triton


def test_honest_versions_pass_in_every_precision_over_both_protocols(spoiled: Line) -> None:
    cli.run(["export", str(spoiled.run), "--repository", str(spoiled.repository), "--precision", "fp16", "--precision", "int8"])
    set_policy(model_named(spoiled.repository, "mnist"), VersionPolicy("all"))
    with start_server(spoiled.repository, FREE_PORTS) as server:
        for url in (server.grpc_url, server.http_url):
            for version in ("1", "2", "3"):
                with Classifier("mnist", url, version=version, check=True) as mnist:
                    assert mnist.served_version() == version


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_the_same_network_from_another_seed_is_another_model(protocol: str, spoiled: Line, other_line: Line) -> None:
    version = Path("mnist") / "1" / "model.onnx"
    shutil.copyfile(other_line.repository / version, spoiled.repository / version)
    with start_server(spoiled.repository, ServeSettings(http_port=0, grpc_port=0, metrics_port=0, verify_hashes=False)) as server:
        url = server.grpc_url if protocol == "grpc" else server.http_url
        with pytest.raises(ModelError, match=rf"^the model mnist version 1 on {url} is not the one that was published: .* by \|Δp\| \d"):
            Classifier("mnist", url, check=True)
