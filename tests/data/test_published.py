"""MNIST's kin and CIFAR, from files in every place where people keep them."""

from __future__ import annotations

import gzip
import hashlib
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from torchvision import datasets

from hpo_ray.data import checks, images, published
from hpo_ray.errors import InvalidInput


def idx(values: np.ndarray) -> bytes:
    return bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">i4").tobytes() + values.tobytes()


def write_idx(folder: Path, *, zipped: bool = False, n: int = 40) -> dict[str, np.ndarray]:
    folder.mkdir(parents=True, exist_ok=True)
    rng, written = np.random.default_rng(0), {}
    for part, count in (("train", n), ("t10k", n // 2)):
        written[f"{part}-images-idx3-ubyte"] = rng.integers(0, 256, (count, 28, 28), np.uint8)
        written[f"{part}-labels-idx1-ubyte"] = np.arange(count, dtype=np.uint8) % 10
    for name, values in written.items():
        content = idx(values)
        (folder / (f"{name}.gz" if zipped else name)).write_bytes(gzip.compress(content) if zipped else content)
    return written


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("below", ["", "raw", "fashion-mnist", "fashion_mnist", "FashionMNIST/raw"])
def test_idx_files_are_found_wherever_they_are_kept(tmp_path, below, zipped):
    written = write_idx(tmp_path / below, zipped=zipped)
    assert checks.check("fashion_mnist", str(tmp_path)) == []
    arrays = published.read("fashion_mnist", tmp_path)
    np.testing.assert_array_equal(arrays.train_images[:, 0], written["train-images-idx3-ubyte"])
    np.testing.assert_array_equal(arrays.test_labels, written["t10k-labels-idx1-ubyte"])
    assert arrays.classes[0] == "T-shirt/top"


def test_one_set_is_not_taken_for_another(tmp_path):
    write_idx(tmp_path / "fashion-mnist")
    for root in (tmp_path, tmp_path / "fashion-mnist"):
        assert [problem.key for problem in checks.check("mnist", str(root))] == ["data.root"]
    write_idx(tmp_path / "MNIST" / "raw")
    for root in (tmp_path, tmp_path / "MNIST", tmp_path / "MNIST" / "raw"):
        assert checks.check("mnist", str(root)) == []
    assert checks.check("fashion_mnist", str(tmp_path / "MNIST" / "raw")) != []
    assert published.read("mnist", tmp_path).classes == tuple("0123456789")


def test_what_is_missing_is_named_with_the_places(tmp_path):
    for name, file in (("kmnist", "t10k-labels-idx1-ubyte[.gz]"), ("cifar100", "cifar-100-python/train")):
        [problem] = checks.check(name, str(tmp_path))
        assert file in problem.message
        assert str(tmp_path) in problem.message
        assert "data.download=true" in problem.message
    [problem] = checks.check("mnist", str(tmp_path / "none"))
    assert "does not exist" in problem.message


@pytest.mark.parametrize(
    "damage", [b"", b"\x1f\x8b\x08\x00cut", b"<html>404</html>", gzip.compress(b"\0\0\x08\x03\0\0\0\x05")]
)
def test_damaged_files_are_told(tmp_path, damage):
    write_idx(tmp_path, zipped=True)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(damage)
    with pytest.raises(InvalidInput, match="cannot be read") as caught:
        published.read("mnist", tmp_path)
    assert str(path) in str(caught.value)


def test_images_and_labels_must_be_as_many(tmp_path):
    write_idx(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(np.zeros(3, np.uint8)))
    with pytest.raises(InvalidInput, match="do not fit"):
        published.read("mnist", tmp_path)


def write_cifar(root: Path, monkeypatch, n: int = 30) -> np.ndarray:
    """CIFAR's own layout with other images; torchvision is told their checksums."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    rng, sums, pixels = np.random.default_rng(0), {}, []
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        data = rng.integers(0, 256, (n, 3072), np.uint8)
        pixels.append(data)
        (folder / name).write_bytes(pickle.dumps({"data": data, "labels": [i % 10 for i in range(n)]}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))
    for path in folder.iterdir():
        sums[path.name] = hashlib.md5(path.read_bytes()).hexdigest()
    monkeypatch.setattr(
        datasets.CIFAR10, "train_list", [[f"data_batch_{i}", sums[f"data_batch_{i}"]] for i in range(1, 6)]
    )
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [["test_batch", sums["test_batch"]]])
    monkeypatch.setattr(
        datasets.CIFAR10, "meta", {"filename": "batches.meta", "key": "label_names", "md5": sums["batches.meta"]}
    )
    return np.concatenate(pixels)


@pytest.mark.parametrize("below", ["", "cifar-10-batches-py"])
def test_cifar_is_read_by_torchvision(tmp_path, monkeypatch, below):
    pixels = write_cifar(tmp_path, monkeypatch)
    arrays = published.read("cifar10", tmp_path / below)
    assert arrays.train_images.shape == (150, 3, 32, 32)
    assert arrays.test_images.shape == (30, 3, 32, 32)
    np.testing.assert_array_equal(arrays.train_images.reshape(150, -1), pixels[:150])
    assert arrays.classes == tuple("abcdefghij")


def test_cifar_with_other_bytes_is_never_unpickled(tmp_path, monkeypatch):
    write_cifar(tmp_path, monkeypatch)
    (tmp_path / "cifar-10-batches-py" / "data_batch_3").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    with pytest.raises(InvalidInput, match="not the published 'cifar10'"):
        published.read("cifar10", tmp_path)


def test_nothing_is_downloaded_unless_asked_for_and_a_failure_is_told(tmp_path, monkeypatch):
    asked = []

    def offline(*arguments, **options):
        asked.append(arguments)
        raise RuntimeError("Error downloading train-images-idx3-ubyte.gz")

    monkeypatch.setattr(datasets.MNIST, "download", offline)
    with pytest.raises(InvalidInput, match="looked for"):
        published.read("kmnist", tmp_path)
    assert asked == []
    with pytest.raises(InvalidInput, match="without a network, put its files there") as caught:
        published.read("kmnist", tmp_path, download=True)
    assert caught.value.problems[0].key == "data.download"
    assert asked


def test_the_official_test_images_are_the_test_part(tmp_path):
    written = write_idx(tmp_path / "mnist", n=100)
    data = images.load("mnist", str(tmp_path), valid_fraction=0.1, split_seed=2)
    assert [len(data.train), len(data.valid), len(data.test)] == [90, 10, 50]
    np.testing.assert_array_equal(data.test.images[:, 0].numpy(), written["t10k-images-idx3-ubyte"])
    assert data.valid.labels.bincount().tolist() == [1] * 10
    assert (data.channels, data.image_size) == (1, 28)


def test_fashion_mnist_as_it_is_shared():
    folder = os.environ.get("HPO_RAY_TEST_DATA")
    if not folder:
        pytest.skip("HPO_RAY_TEST_DATA names no folder of test data")
    data = images.load("fashion_mnist", folder, valid_fraction=5000 / 60000)
    assert [len(data.train), len(data.valid), len(data.test)] == [55_000, 5_000, 10_000]
    assert data.valid.labels.bincount().tolist() == [500] * 10
    assert data.train.images.element_size() == 1
    assert data.train.images.shape[1:] == (1, 28, 28)
    mean = data.train.images.float().mean() / 255
    assert abs(mean - 0.286) < 0.002  # the published mean
    assert images.load("fashion_mnist", folder, valid_fraction=5000 / 60000, image_size=32).train.images is (
        data.train.images
    ), "another size does not hold the images twice"
