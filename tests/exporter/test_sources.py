"""Sources of models that were trained elsewhere are lines of a registry."""

from pathlib import Path

import pytest

from sightline.cli import run as sightline
from sightline.errors import UsageError
from sightline.repository.read import read_version
from sightline_export.sources.registry import SOURCES, Source, source_named, usage
from support.reports import as_json


def test_a_source_of_ones_own_is_a_module_and_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(SOURCES, "pocket", Source("pocket:NAME", "support.throwaway:from_pocket"))
    assert usage() == "torchvision:NAME[/VERSION], timm:NAME|DIR|hf-hub:OWNER/NAME, huggingface:DIR or pocket:NAME"
    sightline(["export", "--from", "pocket:marble", "--repository", str(tmp_path / "models"), "--images", "8"])
    report = as_json(read_version(tmp_path / "models" / "marble" / "1").report)
    assert (report["provenance"]["from"], report["gate"]["passed"], report["gate"]["pictures"]) == ("pocket:marble", True, 8)
    assert " ".join(capsys.readouterr().out.splitlines()[1].split()) == "from pocket:marble, weights: random"


@pytest.mark.parametrize("text", ["keras:vgg16", "timm:", "timm", ""])
def test_an_unknown_source_is_answered_with_the_known_ones(text: str) -> None:
    with pytest.raises(UsageError) as refused:
        source_named(text)
    assert str(refused.value) == (
        "a model that was trained elsewhere is named torchvision:NAME[/VERSION], timm:NAME|DIR|hf-hub:OWNER/NAME or huggingface:DIR, "
        f"not {text!r}"
    )


def test_the_commands_help_lists_them(capsys: pytest.CaptureFixture[str]) -> None:
    sightline(["export", "--help"])
    words = " ".join(capsys.readouterr().out.split())
    assert all(source.usage in words for source in SOURCES.values())


def test_every_source_has_its_loader_and_its_paragraph_in_the_docs() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "bring-your-own-model.md").read_text(encoding="utf-8")
    for source in SOURCES.values():
        assert callable(source.load())
        assert f"| `{source.prefix}:" in page
