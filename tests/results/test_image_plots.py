"""The worst images are shown as they are, each under its own words, whatever they come as."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from hpo_ray.results import image_plots, plots

RED = (200, 10, 10)


def rows(*indices: int, predicted: str = "bee", true: str = "ant") -> pd.DataFrame:
    return pd.DataFrame(
        [{"index": k, "loss": 2.0, "predicted": predicted, "true": true, "p_predicted": 0.9, "p_true": 0.05 + k / 100}
         for k in indices]
    )  # fmt: skip


def shown(figure: Figure) -> list[np.ndarray]:
    return [np.asarray(axes.images[0].get_array()) for axes in figure.axes]


def said(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.texts]


def test_each_image_is_looked_up_by_its_index_and_stands_under_its_words() -> None:
    images = [np.full((8, 8), k / 10) for k in range(10)]
    figure = image_plots.top_losses(images, rows(7, 2, 5))
    assert [tile[0, 0] for tile in shown(figure)] == [0.7, 0.2, 0.5]
    assert said(figure)[::2] == ["taken for bee  0.90"] * 3
    assert said(figure)[1::2] == ["is ant  0.12", "is ant  0.07", "is ant  0.10"]
    for axes, text in zip(figure.axes, figure.texts[::2], strict=True):
        box = axes.get_position()
        assert text.get_position()[0] == pytest.approx(box.x0)
        assert box.y1 < text.get_position()[1] < 1


@pytest.mark.parametrize(("there", "n", "tiles"), [(20, 9, 9), (4, 9, 4), (1, 9, 1), (0, 9, 0), (20, 2, 2)])
def test_at_most_n_are_shown(there: int, n: int, tiles: int, tmp_path: Path) -> None:
    figure = image_plots.top_losses([np.zeros((4, 4))] * 20, rows(*range(there)) if there else rows(0).head(0), n=n)
    assert len(figure.axes) == tiles
    plots.save(figure, tmp_path / "x.png")


@pytest.mark.parametrize("right", [True, False])
def test_an_image_that_is_right_is_not_called_wrong(right: bool) -> None:
    figure = image_plots.top_losses([np.zeros((4, 4))], rows(0, predicted="ant" if right else "bee"))
    assert any("taken for" in text for text in said(figure)) is not right


def test_words_stay_within_their_tiles() -> None:
    names = {"predicted": "Staffordshire bull terrier, brindle", "true": "American wire-haired pointer, great"}
    figure = image_plots.top_losses([np.zeros((4, 4))] * 9, rows(*range(9), **names))
    figure.draw_without_rendering()
    for axes, *texts in zip(figure.axes, figure.texts[::2], figure.texts[1::2], strict=True):
        for text in texts:
            assert text.get_window_extent().x1 <= axes.get_window_extent().x1 + 2
            assert text.get_window_extent().y0 >= axes.get_window_extent().y1
    heights = [text.get_window_extent() for text in figure.texts[:2]]
    assert heights[1].y1 <= heights[0].y0


def test_tiles_do_not_overlap_whatever_their_shapes() -> None:
    shapes = [(40, 400), (400, 40), (90, 100), (100, 90)]
    figure = image_plots.top_losses([np.zeros(shape) for shape in shapes], rows(0, 1, 2, 3))
    boxes = [axes.get_window_extent() for axes in figure.axes]
    for one in range(4):
        for other in range(one):
            assert not boxes[one].overlaps(boxes[other])
        assert 0 <= boxes[one].y0 < boxes[one].y1 < figure.bbox.height


PICTURE = np.zeros((6, 9, 3), np.uint8) + np.array(RED, np.uint8)


def written(folder: Path, name: str, image: Image.Image, **options: object) -> Path:
    image.save(folder / name, **options)
    return folder / name


def test_files_arrays_and_pictures_look_the_same(tmp_path: Path) -> None:
    path = written(tmp_path, "a.png", Image.fromarray(PICTURE))
    given = [path, str(path), Image.fromarray(PICTURE), PICTURE, PICTURE.transpose(2, 0, 1)]
    for tile in shown(image_plots.top_losses(given, rows(*range(5)))):
        assert tile.tolist() == PICTURE.tolist()
    grey = np.zeros((1, 6, 9))
    assert [
        tile.shape for tile in shown(image_plots.top_losses([grey, grey[0], grey[0, ..., None]], rows(0, 1, 2)))
    ] == [(6, 9)] * 3


def test_a_photograph_is_turned_upright_and_made_small(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held on its side
    path = written(tmp_path, "a.jpg", Image.new("RGB", (1600, 800), RED), exif=exif)
    [tile] = shown(image_plots.top_losses([path], rows(0)))
    assert tile.shape[0] == 2 * tile.shape[1] <= 400


def test_transparent_is_white_and_deep_grey_is_not(tmp_path: Path) -> None:
    clear = written(tmp_path, "a.png", Image.new("RGBA", (4, 4), (0, 0, 0, 0)))
    deep = written(tmp_path, "b.png", Image.fromarray(np.arange(16, dtype=np.uint16).reshape(4, 4) * 4000))
    white, grey = shown(image_plots.top_losses([clear, deep], rows(0, 1)))
    assert white.min() == 255
    assert len(np.unique(grey)) == 16


@pytest.mark.parametrize("content", [b"", b"GIF89a junk", None])
def test_an_unreadable_file_is_a_grey_tile_with_its_name(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "broken picture.jpg"
    if content is not None:
        path.write_bytes(content)
    figure = image_plots.top_losses([path, PICTURE], rows(0, 1))
    grey, _ = figure.axes
    assert [text.get_text() for text in grey.texts] == ["unreadable\nbroken picture.jpg"]
    assert np.unique(shown(figure)[0]).tolist() == [0.8]
    assert said(figure)[:2] == ["taken for bee  0.90", "is ant  0.05"]


def test_a_truncated_photograph_is_unreadable(tmp_path: Path) -> None:
    draw = np.random.default_rng(0).integers(256, size=(90, 90, 3), dtype=np.uint8)
    path = written(tmp_path, "cut.jpg", Image.fromarray(draw))
    path.write_bytes(path.read_bytes()[:2000])
    [axes] = image_plots.top_losses([path], rows(0)).axes
    assert axes.texts
