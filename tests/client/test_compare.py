"""The rules of a comparison, against transports without a server: what is counted, what is listed, what is refused."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from sightline import Classifier, ModelCard, cli, reformat
from sightline.compare import Broken, CompareSettings, Comparison, Difference, Limits, compare
from sightline.compare import answers as answers_module
from sightline.compare.compare import KEPT
from sightline.errors import HopDiffers, RowsFailed, ServerUnavailable, UsageError
from sightline.scoring import ScoreProgress
from sightline.testing import FakeTransport, Network
from support.fake_network import LABELS, brightest, card

COLOURS = {"red": (200, 30, 20), "green": (30, 200, 20), "blue": (20, 30, 200), "murky": (90, 100, 80)}
TURNED = ("blue", "red", "green")


def dimmer(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """The same network after green became weaker: what is murky is red to it."""
    light = brightest(pixels).astype(np.float64) * (1.0, 0.7, 1.0)
    return np.asarray(light / light.sum(axis=1, keepdims=True), np.float32)


def in_order(labels: tuple[str, ...], network: Network) -> Network:
    """The network with its answers in another order of labels."""
    columns = [LABELS.index(label) for label in labels]
    return lambda pixels: np.ascontiguousarray(network(pixels)[:, columns])


def opened(network: Network = brightest, changed: ModelCard | None = None) -> Classifier:
    return Classifier("colours", transport=FakeTransport(changed or card(), network))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Seven images in class folders, one of them with a mistyped name; one image in none; one broken."""
    place = tmp_path / "in"
    for name, colour in (
        ("red/1.png", "red"),
        ("red/2.png", "red"),
        ("green/1.png", "green"),
        ("green/2.png", "murky"),
        ("blue/1.png", "blue"),
        ("blue/2.png", "murky"),
        ("gren/1.png", "green"),
        ("top.png", "murky"),
    ):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 9), COLOURS[colour]).save(place / name)
    (place / "red" / "broken.jpg").write_bytes(b"")
    return place


@pytest.fixture
def two_servers(monkeypatch: pytest.MonkeyPatch) -> dict[str, FakeTransport]:
    """The command line reaches one transport at each address."""
    transports = {"grpc://localhost:8001": FakeTransport(card(), brightest), "http://other:8000": FakeTransport(card(), dimmer)}
    for url, transport in transports.items():
        transport.url = url
    monkeypatch.setattr("sightline.classifier.connect", lambda url, *_: transports[url])
    return transports


def hand_made(image: Path, network: Network) -> npt.NDArray[np.float32]:
    return network(reformat(image, card().preprocess)[None]).reshape(-1)


def test_flips_and_differences_are_those_of_answers_compared_by_hand(folder: Path) -> None:
    seen: list[Difference | Broken] = []
    comparison = compare(opened(), opened(dimmer), folder, keep=seen.append)
    images = sorted(folder.rglob("*.png"))
    by_hand = {path.relative_to(folder).as_posix(): np.abs(hand_made(path, brightest) - hand_made(path, dimmer)).max() for path in images}
    assert (comparison.images, comparison.broken, comparison.flips) == (8, 1, 3)
    assert comparison.max_delta_p == pytest.approx(max(by_hand.values()))
    assert comparison.mean_delta_p == pytest.approx(np.mean(list(by_hand.values())))
    assert comparison.max_delta_at is not None
    assert by_hand[comparison.max_delta_at.image] == pytest.approx(comparison.max_delta_p)
    assert [flip.image for flip in comparison.worst_flips] == ["blue/2.png", "green/2.png", "top.png"]
    flip = comparison.worst_flips[0]
    assert (flip.label_a, flip.label_b, flip.delta_label) == ("green", "red", "green")
    assert flip.probability_a == pytest.approx(100 / 270, abs=1e-4)
    assert flip.probability_b == pytest.approx(90 / 240, abs=1e-4)
    assert [entry.image for entry in seen] == ["blue/2.png", "green/2.png", "red/broken.jpg", "top.png"]
    assert comparison.broken_images[0].error == f"{folder}/red/broken.jpg: the file is empty"


def test_a_model_compared_with_itself_does_not_differ(folder: Path) -> None:
    comparison = compare(opened(), opened(), folder)
    assert (comparison.flips, comparison.max_delta_p, comparison.mean_delta_p, comparison.worst_flips) == (0, 0.0, 0.0, ())
    assert comparison.excess(Limits(0, 0.0)) == []


def test_labels_are_matched_by_name_where_one_order_is_a_permutation_of_the_other(folder: Path) -> None:
    straight = compare(opened(), opened(dimmer), folder)
    turned = compare(opened(), opened(in_order(TURNED, dimmer), card(labels=TURNED)), folder)
    assert turned.worst_flips == straight.worst_flips
    assert (turned.max_delta_at, turned.mean_delta_p) == (straight.max_delta_at, straight.mean_delta_p)
    back = compare(opened(in_order(TURNED, dimmer), card(labels=TURNED)), opened(), folder)
    assert [(flip.label_a, flip.label_b) for flip in back.worst_flips] == [("red", "green")] * 3


def test_of_equal_probabilities_each_model_answers_as_its_guesses_do(folder: Path) -> None:
    def undecided(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        return np.full((len(pixels), 3), 1 / 3, np.float32)

    b = opened(undecided, card(labels=TURNED))
    comparison = compare(opened(undecided), b, folder)
    assert b.classify(folder / "top.png")[0].label == "blue"
    assert {(flip.label_a, flip.label_b, flip.max_delta_p) for flip in comparison.worst_flips} == {("red", "blue", 0.0)}


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        (("red", "green", "violet"), "only A has 'blue'; only B has 'violet'"),
        (("red", "green"), "only A has 'blue'"),
        (("red", "green", "blue", "a", "b", "c", "d"), "only B has 'a', 'b', 'c' and 1 more"),
    ],
)
def test_models_with_other_labels_are_refused_with_the_difference(labels: tuple[str, ...], sentence: str, folder: Path) -> None:
    with pytest.raises(UsageError) as refusal:
        compare(opened(), Classifier("others", transport=FakeTransport(card(name="others", labels=labels), brightest), version="1"), folder)
    expected = f"colours and others:1 cannot be compared, since their labels differ: {sentence}"
    assert str(refusal.value) == expected.replace("only A", "only colours").replace("only B", "only others:1")


@pytest.mark.parametrize(("size", "decoded"), [((8, 6), 1), ((5, 4), 2)])
def test_an_image_is_decoded_once_unless_the_preprocessing_differs(
    size: tuple[int, int], decoded: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: dict[str, int] = {}

    def counted(image: Path, *more: object) -> npt.NDArray[np.uint8]:
        counts[str(image)] = counts.get(str(image), 0) + 1
        return reformat(image, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(answers_module, "reformat", counted)
    other = card(preprocess=card().preprocess.model_copy(update={"size": size}))
    a, b = FakeTransport(card(), brightest), FakeTransport(other, dimmer)
    comparison = compare(Classifier("colours", transport=a), Classifier("colours", transport=b), folder)
    assert comparison.same_preprocess == (decoded == 1)
    assert {name: count for name, count in counts.items() if not name.endswith("broken.jpg")} == {
        str(path): decoded for path in folder.rglob("*.png")
    }
    assert {pixels.shape[1:] for pixels in a.requests} == {(8, 6, 3)}
    assert {pixels.shape[1:] for pixels in b.requests} == {(*size, 3)}
    sent = np.concatenate(b.requests)
    expected = [reformat(path, other.preprocess) for path in sorted(folder.rglob("*.png"))]
    assert (np.sort(sent, axis=0) == np.sort(np.stack(expected), axis=0)).all()
    assert comparison.flips == 3


def test_the_accuracies_are_those_of_the_images_in_class_folders(folder: Path) -> None:
    pytest.importorskip("scipy")
    accuracy = compare(opened(), opened(dimmer), folder, CompareSettings(labelled=True)).accuracy
    assert accuracy is not None
    counted = (accuracy.images, accuracy.both_right, accuracy.only_a_right, accuracy.only_b_right, accuracy.neither_right)
    assert counted == (6, 4, 1, 0, 1)
    assert (accuracy.accuracy_a, accuracy.accuracy_b, accuracy.difference) == (5 / 6, 4 / 6, -1 / 6)
    assert accuracy.mcnemar_p == 1.0
    assert accuracy.difference_interval_95 == pytest.approx((-0.5372, 0.2620), abs=1e-4)
    assert accuracy.without_truth == 1
    assert [(each.truth, each.images, each.nearest) for each in accuracy.unknown_truths] == [("gren", 1, "green")]


def test_a_folder_without_class_folders_is_refused_before_an_image_is_read(folder: Path) -> None:
    pytest.importorskip("scipy")
    transport = FakeTransport(card(), brightest)
    with pytest.raises(UsageError) as refusal:
        compare(Classifier("colours", transport=transport), opened(), folder / "red", CompareSettings(labelled=True))
    assert str(refusal.value) == (
        f"{folder}/red: no folder in it is called as a label, so that nobody can say what the images show "
        "(folders: none; labels: 'red', 'green', 'blue' …)"
    )
    assert transport.requests == []


def test_memory_holds_the_worst_flips_and_a_few_batches(tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    Image.new("RGB", (4, 4), COLOURS["murky"]).save(folder / "0.png")
    for number in range(1, 400):
        (folder / f"{number}.png").hardlink_to(folder / "0.png")
    (folder / "zz").mkdir()
    for number in range(KEPT + 5):
        (folder / "zz" / f"{number}.png").write_bytes(b"")
    transport = FakeTransport(card(), brightest)
    ahead = 0

    def progress(now: ScoreProgress) -> None:
        nonlocal ahead
        ahead = max(ahead, sum(map(len, transport.requests)) - now.rows)

    comparison = compare(Classifier("colours", transport=transport), opened(dimmer), folder, progress=progress)
    assert (comparison.images, comparison.flips, comparison.broken) == (400, 400, KEPT + 5)
    assert (len(comparison.worst_flips), len(comparison.broken_images)) == (KEPT, KEPT)
    assert ahead <= 6 * 4


def test_an_empty_folder_and_one_that_is_not_there_are_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nowhere: there is no such folder of images"):
        compare(opened(), opened(), tmp_path / "nowhere")
    with pytest.raises(UsageError) as refusal:
        compare(opened(), opened(), tmp_path)
    assert str(refusal.value) == f"{tmp_path}: there is no image in this folder"


Command = Callable[..., None]


@pytest.fixture
def command(folder: Path, two_servers: dict[str, FakeTransport]) -> Command:
    def run(*options: str, broken: bool = False) -> None:
        if not broken:
            (folder / "red" / "broken.jpg").unlink()
        cli.run(["compare", "colours:1", "colours@http://other:8000", str(folder), *options])

    return run


def test_the_command_prints_what_differs(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("scipy")
    command("--labelled")
    printed = capsys.readouterr()
    lines = [" ".join(line.split()) for line in printed.out.splitlines()]
    sha = card().sha256[:12]
    assert lines[:2] == [f"A colours:1 grpc://localhost:8001 card {sha}", f"B colours:1 http://other:8000 card {sha}"]
    assert "images 8" in lines
    assert "labels that differ 3 (37.50%)" in lines
    assert "accuracy of A 83.33% (95 %: 43.65% to 96.99%) on 6 images" in lines
    assert "right alone A 1 times, B 0 times (McNemar's exact p = 1)" in lines
    assert "blue/2.png blue green red 0.3704 0.3750 0.0787" in lines
    assert printed.err.splitlines() == [
        "note: 'gren' is no label of the model (1 image): is 'green' meant?",
        "note: 1 image lies in no class folder",
    ]


def test_the_document_has_the_fields_that_the_docs_describe(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("scipy")
    command("--labelled", "--json")
    document = json.loads(capsys.readouterr().out)
    assert (document["images"], document["flips"], document["a"]["version"], document["b"]["url"]) == (8, 3, "1", "http://other:8000")
    assert document["accuracy"]["only_a_right"] == 1
    page = (Path(__file__).resolve().parents[2] / "docs" / "clients.md").read_text(encoding="utf-8")
    section = page.partition("## Two models side by side")[2].partition("\n## ")[0]
    parts = [document, document["a"], document["worst_flips"][0], document["accuracy"], document["accuracy"]["unknown_truths"][0]]
    assert sorted({name for part in parts for name in part if f"`{name}`" not in section}) == []


def test_a_comparison_is_a_gate_with_exit_code_14(command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(HopDiffers) as refusal:
        command("--at-most-flips", "2", "--at-most-dp", "0.05", "--out", str(tmp_path / "flips.csv"))
    assert refusal.value.exit_code == 14
    assert str(refusal.value) == (
        "colours:1@grpc://localhost:8001 and colours:1@http://other:8000 differ more than they may: 3 labels differ, where at most 2 may; "
        "probabilities differ by 0.0787 at blue/2.png, where they may by 0.05"
    )
    assert (tmp_path / "flips.csv").exists()
    assert "labels that differ" in capsys.readouterr().out


def test_a_difference_that_is_allowed_passes(command: Command) -> None:
    command("--at-most-flips", "3", "--at-most-dp", "0.3")


def test_images_that_cannot_be_read_are_listed_once_and_end_with_exit_code_16(
    command: Command, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(RowsFailed) as failure:
        command("--at-most-flips", "3", broken=True)
    assert str(failure.value) == "1 of 9 images could not be read, and were not compared"
    printed = capsys.readouterr()
    assert printed.err == f"error: {folder}/red/broken.jpg: the file is empty\n"
    assert "8 (1 more could not be read)" in printed.out


def test_a_limit_that_is_no_number_is_refused(command: Command) -> None:
    with pytest.raises(UsageError, match="probabilities may differ by 0 to 1, not by nan"):
        command("--at-most-dp", "nan")
    with pytest.raises(UsageError, match="at least 0, not -1"):
        Limits(flips=-1)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_the_file_holds_every_flip_and_every_broken_image(
    suffix: str, folder: Path, tmp_path: Path, two_servers: dict[str, FakeTransport]
) -> None:
    pytest.importorskip("scipy")
    (folder / "green" / "2.png").rename(folder / "green" / "=2.png")
    (folder / "-x.png").write_bytes((folder / "top.png").read_bytes())
    out = tmp_path / f"flips{suffix}"
    with pytest.raises(RowsFailed):
        cli.run(["compare", "colours", "colours@http://other:8000", str(folder), "--labelled", "--out", str(out)])
    if suffix == ".csv":
        rows = list(csv.DictReader(out.open(encoding="utf-8", newline="")))
        assert [row["image"] for row in rows] == ["'-x.png", "blue/2.png", "green/=2.png", "red/broken.jpg", "top.png"]
        assert rows[1] == {
            "image": "blue/2.png",
            "truth": "blue",
            "label_a": "green",
            "probability_a": "0.370370",
            "label_b": "red",
            "probability_b": "0.375000",
            "max_delta_p": "0.078704",
            "delta_label": "green",
            "error": "",
        }
        assert (rows[3]["label_a"], rows[3]["probability_b"], rows[3]["error"]) == ("", "", f"{folder}/red/broken.jpg: the file is empty")
    else:
        documents = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
        assert [document["image"] for document in documents] == ["-x.png", "blue/2.png", "green/=2.png", "red/broken.jpg", "top.png"]
        assert (documents[3]["label_a"], documents[3]["probability_a"]) == (None, None)
        assert (documents[2]["truth"], documents[2]["label_b"], documents[2]["error"]) == ("green", "red", None)


def test_a_file_name_that_is_no_utf8_is_written_as_python_calls_it(
    folder: Path, tmp_path: Path, two_servers: dict[str, FakeTransport]
) -> None:
    (folder / "red" / "broken.jpg").unlink()
    with open(bytes(folder) + b"/b\xff.png", "wb") as file:
        file.write((folder / "top.png").read_bytes())
    for name in ("flips.csv", "flips.jsonl"):
        cli.run(["compare", "colours", "colours@http://other:8000", str(folder), "--json", "--out", str(tmp_path / name)])
    assert "b\\udcff.png" in (tmp_path / "flips.csv").read_text(encoding="utf-8")
    assert json.loads((tmp_path / "flips.jsonl").read_text(encoding="utf-8").splitlines()[1])["image"] == "b\\udcff.png"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["colours:x", "colours", "."],
            "colours:x: name a model as MODEL, MODEL:VERSION or MODEL:VERSION@URL, for example mnist:2@http://other:8000",
        ),
        (["colours", "colours:1", "."], "A and B are the same: colours version 1 on grpc://localhost:8001"),
        (["colours", "colours@http://other:8000", "nowhere"], "nowhere: there is no such folder of images"),
        (
            ["colours", "colours@http://other:8000", ".", "--out", "flips.txt"],
            "flips.txt: differences are written as CSV or JSON lines, so the file's name must end with .csv or .jsonl",
        ),
        (["colours", "colours@http://other:8000", ".", "--out", "no/flips.csv"], "no: there is no such folder to write flips.csv in"),
        (
            ["colours", "colours@http://other:8000", ".", "--out", "here.csv"],
            "here.csv: the file exists already: choose another name, or overwrite it",
        ),
    ],
)
def test_a_comparison_that_makes_no_sense_is_refused_before_it_begins(
    arguments: list[str], sentence: str, folder: Path, two_servers: dict[str, FakeTransport], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    (folder / "here.csv").write_text("precious")
    with pytest.raises(UsageError) as refusal:
        cli.run(["compare", *arguments])
    assert str(refusal.value) == sentence
    assert all(transport.requests == [] for transport in two_servers.values())


def test_a_server_that_dies_leaves_no_file_that_looks_finished(folder: Path, tmp_path: Path, two_servers: dict[str, FakeTransport]) -> None:
    def dies(_pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        raise ServerUnavailable("no Triton server answers at http://other:8000")

    two_servers["http://other:8000"] = FakeTransport(card(), dies)
    with pytest.raises(ServerUnavailable):
        cli.run(["compare", "colours", "colours@http://other:8000", str(folder), "--wait", "0", "--out", str(tmp_path / "flips.csv")])
    assert list(tmp_path.glob("*flips*")) == []


def test_a_comparison_is_a_value(folder: Path) -> None:
    first, second = (compare(opened(), opened(dimmer), folder) for _ in range(2))
    assert isinstance(first, Comparison)
    assert first == second
