"""A model that was not trained here, served by the real Triton: the client's label is that of the original library in torch."""

from pathlib import Path

import numpy as np
import pytest
import torch

from sightline import cli
from sightline.classifier import Classifier
from sightline.errors import DataError
from sightline.repository.read import read_version
from sightline_export.gate.thresholds import FP32
from sightline_export.settings import Endpoints
from sightline_export.verify.prove import verify
from sightline_serving.server import start_server
from sightline_serving.settings import FREE_PORTS
from support.comparison_images import smooth
from support.foreign_networks import TEN, as_tensor, saved
from support.hf_processors import CONVNEXT

transformers = pytest.importorskip("transformers")


@pytest.mark.triton
def test_an_imported_model_is_served_and_answers_as_in_its_own_library(tmp_path: Path) -> None:
    folder, repository = saved(tmp_path, "convnext-tiny-224"), tmp_path / "models"
    cli.run(["export", "--from", f"huggingface:{folder}", "--repository", str(repository), "--images", "8"])
    network, transform = transformers.AutoModelForImageClassification.from_pretrained(folder).eval(), as_tensor(CONVNEXT)
    seen = set()
    with start_server(repository, FREE_PORTS) as server:
        for url in (server.grpc_url, server.http_url):
            with Classifier("convnext-tiny-224", url) as served:
                assert served.card.labels == TEN
                for number in range(12):
                    image = smooth(number, (500, 375))
                    with torch.inference_mode():
                        expected = torch.softmax(network(transform(image)[None]).logits, dim=1).numpy()[0]
                    (guess,) = served.classify([image])
                    assert guess.label == network.config.id2label[int(expected.argmax())]
                    assert np.abs(served.probabilities([image])[0] - expected).max() < FP32.max_delta_p
                    seen.add(guess.label)
                folder = repository / "convnext-tiny-224" / "1"
                golden = sorted((folder / "golden").glob("*.png"))
                assert len(golden) == 8
                assert read_version(folder).report.provenance["from"] == "huggingface:convnext-tiny-224"
                assert np.isfinite(served.probabilities(golden)).all()
        endpoints = Endpoints(grpc_url=server.grpc_url, http_url=server.http_url)
        with pytest.raises(DataError, match=r"was imported from huggingface:convnext-tiny-224, and has no run to compare it with"):
            verify("convnext-tiny-224", tmp_path / "none", repository, endpoints)
    assert len(seen) > 1, "one label for all images proves nothing"
