"""Features of a frozen trunk are computed once; a kill, a damaged file or a second process never changes what is learned from them."""

import hashlib
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from sightline.errors import DataError, MachineError
from sightline.host.cache import cache_folder
from sightline_training.augment.kornia_ops import distortion
from sightline_training.loop import feature_cache as features
from sightline_training.loop.feature_cache import FeatureSource, cached_features
from sightline_training.networks.backbones import Backbone, trunk_of
from sightline_training.networks.transfer import Transferred
from sightline_training.networks.weights import Weights, load_weights, weights_from
from sightline_training.networks.wrappers import Network
from sightline_training.recipe import Recipe
from sightline_training.recipes.cifar10 import CARD
from support.feature_trunk import BATCH, IMAGES, Trunk, shaken


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "batch_size_for", lambda _: BATCH)


@pytest.fixture
def pixels() -> npt.NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (IMAGES, 4, 4, 3), dtype=np.uint8)


def _plain(trunk: Trunk, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    with torch.inference_mode():
        answers: npt.NDArray[np.float32] = trunk.map(torch.from_numpy(pixels).float().flatten(1)).numpy()
    return answers


def test_features_are_the_trunks_own_answers(pixels: npt.NDArray[np.uint8], tmp_path: Path) -> None:
    trunk = Trunk()
    answer = cached_features(trunk, pixels, tmp_path / "k")
    assert (answer.shape, answer.dtype) == ((IMAGES, 5), np.dtype(np.float32))
    assert np.abs(answer - _plain(trunk, pixels)).max() < 1e-3


def test_a_second_call_computes_nothing_whatever_the_order(pixels: npt.NDArray[np.uint8], tmp_path: Path) -> None:
    trunk = Trunk()
    first = cached_features(trunk, pixels, tmp_path / "k")
    assert trunk.computed == IMAGES
    assert np.array_equal(cached_features(trunk, pixels, tmp_path / "k"), first)
    assert np.array_equal(cached_features(trunk, pixels[::-1], tmp_path / "k"), first[::-1])
    assert trunk.computed == IMAGES


def test_of_a_larger_set_only_the_new_images_are_computed_and_the_same_image_only_once(
    pixels: npt.NDArray[np.uint8], tmp_path: Path
) -> None:
    trunk = Trunk()
    cached_features(trunk, pixels[:60], tmp_path / "k")
    answer = cached_features(trunk, np.concatenate([pixels, pixels]), tmp_path / "k")
    assert trunk.computed == IMAGES
    assert np.abs(answer - np.concatenate([_plain(trunk, pixels)] * 2)).max() < 1e-3


def test_another_key_shares_nothing(pixels: npt.NDArray[np.uint8], tmp_path: Path) -> None:
    trunk = Trunk()
    cached_features(trunk, pixels, tmp_path / "one")
    cached_features(trunk, pixels, tmp_path / "other")
    assert trunk.computed == 2 * IMAGES


def test_a_trunk_is_asked_in_evaluation_mode_and_every_module_left_in_its_own(pixels: npt.NDArray[np.uint8], tmp_path: Path) -> None:
    frozen = nn.Sequential(nn.Flatten(), nn.Dropout(0.9)).eval()
    trunk = nn.Sequential(_Float(), frozen, nn.Dropout(0.9), nn.Linear(48, 5))
    answer = cached_features(trunk, pixels, tmp_path / "k")
    assert [module.training for module in trunk] == [True, False, True, True]
    assert not any(module.training for module in frozen.modules())
    with torch.inference_mode():
        assert np.abs(answer - trunk.eval()(torch.from_numpy(pixels)).numpy()).max() < 1e-3


class _Float(nn.Module):
    def forward(self, pixels: Tensor) -> Tensor:
        return pixels.float()


# ---- augmented views


def test_a_view_is_drawn_the_same_whatever_the_cache_already_holds(pixels: npt.NDArray[np.uint8], tmp_path: Path) -> None:
    trunk = Trunk()
    fresh = cached_features(trunk, pixels, tmp_path / "fresh" / "k", augmentation=shaken)
    cached_features(trunk, pixels[:35], tmp_path / "used" / "k", augmentation=shaken)
    cached_features(trunk, pixels[50:], tmp_path / "used" / "k", augmentation=shaken)
    assert np.array_equal(cached_features(trunk, pixels, tmp_path / "used" / "k", augmentation=shaken), fresh)
    computed = trunk.computed
    assert np.array_equal(cached_features(trunk, pixels, tmp_path / "used" / "k", augmentation=shaken), fresh)
    assert trunk.computed == computed


def test_drawing_a_view_disturbs_no_other_draw(pixels: npt.NDArray[np.uint8], tmp_path: Path) -> None:
    trunk = Trunk()
    before = torch.random.get_rng_state()
    cached_features(trunk, pixels, tmp_path / "k", augmentation=shaken)
    assert torch.equal(torch.random.get_rng_state(), before)


# ---- what a kill, a bad disk and a second process may do

WORKER = textwrap.dedent(
    """
    import sys, time
    from pathlib import Path
    import numpy as np
    import torch
    from sightline_training.loop import feature_cache as features
    from sightline_training.loop.feature_cache import cached_features
    sys.path.insert(0, sys.argv[1])
    from support.feature_trunk import BATCH, IMAGES, Trunk, shaken

    class Slow(Trunk):
        def forward(self, pixels):
            time.sleep(float(sys.argv[3]))
            return super().forward(pixels)

    torch.set_num_threads(1)
    features.batch_size_for = lambda _: BATCH
    pixels = np.random.default_rng(0).integers(0, 256, (IMAGES, 4, 4, 3), dtype=np.uint8)
    np.save(sys.stdout.buffer, cached_features(Slow(), pixels, Path(sys.argv[2], "k"), augmentation=shaken))
    """
)


def _worker(cache: Path, pause_s: float) -> "subprocess.Popen[bytes]":
    arguments = [sys.executable, "-c", WORKER, str(Path(__file__).parents[1]), str(cache), str(pause_s)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)


def _files(cache: Path) -> list[Path]:
    return sorted((cache / "k").glob("*.safetensors"))


def test_what_a_killed_process_finished_is_used_and_the_rest_computed(pixels: npt.NDArray[np.uint8], tmp_path: Path) -> None:
    torch.set_num_threads(1)
    expected = cached_features(Trunk(), pixels, tmp_path / "whole" / "k", augmentation=shaken)
    process = _worker(tmp_path / "killed", 0.15)
    for _ in range(1200):
        if _files(tmp_path / "killed") or process.poll() is not None:
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    finished = len(_files(tmp_path / "killed"))
    assert 1 <= finished < len(_files(tmp_path / "whole"))
    trunk = Trunk()
    answer = cached_features(trunk, pixels, tmp_path / "killed" / "k", augmentation=shaken)
    assert trunk.computed == IMAGES - finished * features.CHUNK_BATCHES * BATCH
    assert np.array_equal(answer, expected)


def test_two_processes_at_once_give_the_same_and_leave_one_set_of_files(tmp_path: Path) -> None:
    both = [_worker(tmp_path, 0.02) for _ in range(2)]
    answers = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert answers[0] == answers[1]
    assert len(_files(tmp_path)) == 3


@pytest.mark.parametrize("harm", ["a bit", "the end", "everything", "the name"])
def test_a_damaged_file_is_computed_anew(pixels: npt.NDArray[np.uint8], tmp_path: Path, harm: str) -> None:
    expected = cached_features(Trunk(), pixels, tmp_path / "k")
    path = _files(tmp_path)[1]
    content = path.read_bytes()
    if harm == "a bit":
        path.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    elif harm == "the end":
        path.write_bytes(content[:-1])
    elif harm == "everything":
        path.write_bytes(b"")
    else:
        path.rename(path.with_name(f".{path.name}-x3"))
    trunk = Trunk()
    assert np.array_equal(cached_features(trunk, pixels, tmp_path / "k"), expected)
    assert 0 < trunk.computed < IMAGES
    again = Trunk()
    cached_features(again, pixels, tmp_path / "k")
    assert again.computed == 0
    assert all(hashlib.sha256(file.read_bytes()).hexdigest() == file.stem for file in _files(tmp_path))


def test_a_whole_file_with_something_else_in_it_is_not_used(pixels: npt.NDArray[np.uint8], tmp_path: Path) -> None:
    folder = tmp_path / "k"
    folder.mkdir()
    for content in (b"", b"hello", b"\x02\0\0\0\0\0\0\0{}"):
        (folder / f"{hashlib.sha256(content).hexdigest()}.safetensors").write_bytes(content)
    trunk = Trunk()
    cached_features(trunk, pixels, tmp_path / "k")
    assert trunk.computed == IMAGES


def test_a_folder_that_cannot_be_written_is_named(pixels: npt.NDArray[np.uint8], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError) as refused:
        cached_features(Trunk(), pixels, tmp_path / "file" / "k")
    where = tmp_path / "file" / "k"
    assert str(refused.value) == f"features cannot be kept in {where}: Not a directory. Name another folder with SIGHTLINE_CACHE."


def test_features_that_are_no_numbers_are_refused_and_not_kept(pixels: npt.NDArray[np.uint8], tmp_path: Path) -> None:
    trunk = Trunk()
    with torch.no_grad():
        trunk.map.bias[2] = float("nan")
    with pytest.raises(DataError, match="the backbone's features are no finite numbers"):
        cached_features(trunk, pixels, tmp_path / "k")
    assert not _files(tmp_path)


# ---- of a recipe's network


NAME = Backbone("squeezenet1_1")


@pytest.fixture(scope="module")
def random_weights() -> Weights:
    return weights_from(NAME.name, "random")


@pytest.fixture
def network(random_weights: Weights) -> Network:
    body = Transferred(trunk_of(NAME), nn.Linear(512, 10))
    load_weights(body, random_weights)
    return Network(CARD, body)


FLIPPED = Recipe(
    name="flipped",
    card=CARD,
    data="cifar10",
    stages=(),
    target_accuracy=None,
    augmentation=distortion("flip", "RandomHorizontalFlip", p=1.0),
)


def test_views_of_a_recipe_are_the_plain_images_and_augmented_ones(network: Network, random_weights: Weights, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    views = [FeatureSource(network, NAME, random_weights, FLIPPED, tmp_path).features(images, view) for view in (0, 1)]
    trunk = network.body.trunk
    assert isinstance(trunk, torch.nn.Module)
    with torch.inference_mode():
        for view, shown in zip(views, (images, images[:, :, ::-1].copy()), strict=True):
            expected = trunk.eval()(network.normalise(torch.from_numpy(shown))).numpy()
            assert np.abs(view - expected).max() < 1e-4
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("differing", ["weights", "preprocessing", "augmentation", "view", "part"])
def test_whatever_decides_the_features_decides_where_they_are_kept(
    network: Network, random_weights: Weights, tmp_path: Path, differing: str
) -> None:
    images = np.zeros((2, 32, 32, 3), np.uint8)
    FeatureSource(network, NAME, random_weights, FLIPPED, tmp_path).features(images, 1)
    weights, recipe, backbone, view = random_weights, FLIPPED, NAME, 1
    if differing == "weights":
        weights = replace(weights, sha256="0" * 64)
    elif differing == "preprocessing":
        recipe = recipe.with_card(preprocess=CARD.preprocess.model_copy(update={"exif": "ignore"}))
    elif differing == "augmentation":
        recipe = replace(recipe, augmentation=distortion("flip", "RandomHorizontalFlip", p=0.5))
    elif differing == "part":
        backbone = replace(backbone, part="features")
    else:
        view = 2
    FeatureSource(network, backbone, weights, recipe, tmp_path).features(images, view)
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"SIGHTLINE_CACHE": "/a"}, "/a/features"),
        ({"XDG_CACHE_HOME": "/b"}, "/b/sightline/features"),
        ({"HOME": "/c"}, "/c/.cache/sightline/features"),
        ({"SIGHTLINE_CACHE": "", "XDG_CACHE_HOME": "", "HOME": "/c"}, "/c/.cache/sightline/features"),
    ],
)
def test_the_cache_is_where_the_environment_says(settings: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SIGHTLINE_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    assert cache_folder("features") == Path(expected)
