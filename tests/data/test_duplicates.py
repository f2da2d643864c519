"""Pictures that are there more than once: what counts as the same, what does not, how many can be compared."""

from __future__ import annotations

import io
import time

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageEnhance

from hpo_ray.data import alignment, duplicates


def picture(seed: int, size: tuple[int, int] = (200, 160)) -> Image.Image:
    """Coloured blobs, no two alike."""
    coarse = np.random.default_rng(seed).integers(0, 256, (7, 7, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def thumbnail(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGB").resize((32, 32), Image.Resampling.BILINEAR))


def encoded(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer)


def cut(image: Image.Image, share: float) -> Image.Image:
    width, height = image.size
    return image.crop((int(share * width), int(share * height), int((1 - share) * width), int((1 - share) * height)))


COPIES = {
    "saved again": lambda image: encoded(image, 40),
    "half the size": lambda image: image.resize((100, 80)),
    "another shape": lambda image: image.resize((160, 160)),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.1),
    "less contrast": lambda image: ImageEnhance.Contrast(image).enhance(0.8),
    "cut": lambda image: cut(image, 0.03),
    "all of it": lambda image: encoded(ImageEnhance.Brightness(image.resize((140, 112))).enhance(1.1), 70),
}


@pytest.fixture(scope="module")
def originals() -> np.ndarray:
    return np.stack([thumbnail(picture(seed)) for seed in range(150)])


@pytest.mark.parametrize("change", COPIES)
def test_a_changed_copy_is_found_and_nothing_else(originals, change):
    copies = np.stack([thumbnail(COPIES[change](picture(seed))) for seed in range(20)])
    pairs, limit = duplicates.near_pairs(np.concatenate([originals, copies]), np.zeros(170, bool))
    assert limit == duplicates.FARTHEST
    assert {tuple(pair) for pair in pairs.tolist()} == {(i, 150 + i) for i in range(20)}


def test_a_grey_copy_is_found_and_the_same_shape_in_another_colour_is_not(originals):
    image = picture(0)
    grey = thumbnail(image.convert("L"))
    red, green, blue = image.split()
    recoloured = thumbnail(Image.merge("RGB", (blue, red, green)))
    pairs, _ = duplicates.near_pairs(np.stack([originals[0], grey]), np.array([False, True]))
    assert pairs.tolist() == [[0, 1]]
    pairs, _ = duplicates.near_pairs(np.stack([originals[0], recoloured]), np.zeros(2, bool))
    assert len(pairs) == 0


def test_hashes_against_their_definition(originals):
    """The cosine frequencies by scipy, the shrunken pixels by plain means."""
    from scipy.fft import dctn

    codes = duplicates.hashes(originals[:5])
    for pixels, (p, d) in zip(originals[:5], codes, strict=True):
        light = pixels.astype(np.float64) @ [0.299, 0.587, 0.114]
        low = dctn(light)[:8, :8].ravel()
        bits = low > np.median(low[1:])
        bits[0] = False
        assert np.packbits(bits).tobytes() == p.tobytes()
        shrunk = np.repeat(light, 9, axis=1).reshape(8, 4, 9, 32).mean(axis=(1, 3))
        assert np.packbits(shrunk[:, 1:] > shrunk[:, :-1]).tobytes() == d.tobytes()


def test_candidates_are_all_pairs_within_the_distance():
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 2**64, (300, 2), dtype=np.uint64)
    codes[150:] = codes[:150] ^ (np.uint64(1) << rng.integers(0, 64, (150, 2), dtype=np.uint64))
    (i, j, bits), limit = duplicates.candidates(codes, farthest=50)
    table = np.bitwise_count(codes[:, None] ^ codes[None]).sum(axis=-1)
    expected = {(a, b): table[a, b] for a in range(300) for b in range(a + 1, 300) if table[a, b] <= 50}
    assert dict(zip(zip(i.tolist(), j.tolist(), strict=True), bits.tolist(), strict=True)) == expected
    assert limit == 50


def test_where_too_many_are_alike_the_nearest_are_kept():
    rng = np.random.default_rng(0)
    codes = np.full((400, 2), 12345, np.uint64) ^ rng.integers(0, 2**12, (400, 2), dtype=np.uint64)
    codes[1] = codes[0]
    (i, j, bits), limit = duplicates.candidates(codes, most=1000)
    assert limit < duplicates.FARTHEST
    assert len(i) <= 1000
    assert bits.max() <= limit
    assert (0, 1) in set(zip(i.tolist(), j.tolist(), strict=True))
    table = np.bitwise_count(codes[:, None] ^ codes[None]).sum(axis=-1)
    assert len(i) == (table[np.triu_indices(400, 1)] <= limit).sum()


def test_twenty_thousand_images_are_compared_in_seconds():
    codes = np.random.default_rng(0).integers(0, 2**64, (20_000, 2), dtype=np.uint64)
    since = time.perf_counter()
    (i, _, _), _ = duplicates.candidates(codes, farthest=20)
    assert time.perf_counter() - since < 30
    assert len(i) == 0


def test_the_fit_undoes_shift_stretch_and_light():
    wide = np.asarray(picture(3, (400, 400)), np.float32)
    first = thumbnail(Image.fromarray(wide.astype(np.uint8)).crop((40, 40, 360, 360)))
    second = thumbnail(Image.fromarray((0.8 * wide + 20).astype(np.uint8)).crop((56, 40, 376, 344)))
    found = alignment.match(first[None], second[None])
    assert found.detail[0] > 0.99
    assert found.colour[0] < 3
    assert 0.85 < found.shared[0] < 0.99


def test_groups_are_exact_only_if_every_byte_is():
    looks = np.stack([thumbnail(picture(seed)) for seed in (0, 0, 1, 1, 1, 2)])
    frame = pd.DataFrame(
        {
            "path": list("abcdef"),
            "part": ["train", "valid", "train", "train", "test", "train"],
            "label": ["x", "x", "x", "y", "x", "x"],
            "digest": ["1", "1", "2", "2", "3", "4"],
            "colour": "colour",
        }
    )
    found, _ = duplicates.groups(frame, looks, np.ones(6, bool))
    assert found.groupby("group")["path"].agg("".join).tolist() == ["ab", "cde"]
    assert found.groupby("group")["kind"].first().tolist() == ["exact", "near"]
    found, _ = duplicates.groups(frame, looks, np.zeros(6, bool))
    assert found.groupby("group")["path"].agg("".join).tolist() == ["ab", "cd"]


def test_no_image_and_one_image():
    for n in (0, 1):
        pairs, _ = duplicates.near_pairs(np.zeros((n, 32, 32, 3), np.uint8), np.zeros(n, bool))
        assert pairs.shape == (0, 2)
