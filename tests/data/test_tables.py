"""CSV files of images and labels, right and wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpo_ray.data import tables
from hpo_ray.errors import InvalidInput


def table(folder: Path, text: str, images: str = "1 2 3 4", encoding: str = "utf-8") -> Path:
    """A CSV file with empty files `<number>.jpg` beside it: no picture is opened here."""
    for name in images.split():
        (folder / f"{name}.jpg").touch()
    (folder / "images.csv").write_text(text, encoding=encoding)
    return folder / "images.csv"


def messages(path: Path) -> str:
    with pytest.raises(InvalidInput) as caught:
        tables.scan(path)
    assert {problem.key for problem in caught.value.problems} == {"data.root"}
    return str(caught.value)


def test_paths_are_absolute_or_beside_the_file_and_other_columns_are_passed_over(tmp_path):
    far = tmp_path / "far" / "5.jpg"
    far.parent.mkdir()
    far.touch()
    found = tables.scan(table(tmp_path, f"who,label,path\nx,b,1.jpg\ny,a,{far}\n"))
    assert found.classes == ("a", "b")
    assert found.parts == {"train": ((tmp_path / "1.jpg", 1), (far, 0))}
    assert found.ignored == ()


def test_a_table_may_divide_its_images(tmp_path):
    text = "path,label,split\n1.jpg,a,train\n2.jpg,b,Train\n3.jpg,a,val\n4.jpg,b,test\n"
    parts = tables.scan(table(tmp_path, text)).parts
    assert {part: [path.stem for path, _ in samples] for part, samples in parts.items()} == {
        "train": ["1", "2"],
        "valid": ["3"],
        "test": ["4"],
    }


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_what_spreadsheets_write_is_read(tmp_path, separator):
    text = 'path,label\n"1.jpg", zebra \n\n2.jpg,Äffchen\n'.replace(",", separator).replace("\n", "\r\n")
    found = tables.scan(table(tmp_path, text, encoding="utf-8-sig"))
    assert found.classes == ("zebra", "Äffchen")


def test_numbers_are_sorted_as_numbers(tmp_path):
    assert tables.scan(table(tmp_path, "path,label\n1.jpg,10\n2.jpg,9\n3.jpg,-1\n")).classes == ("-1", "9", "10")
    assert tables.scan(table(tmp_path, "path,label\n1.jpg,10\n2.jpg,9\n3.jpg,x\n")).classes == ("10", "9", "x")


def test_a_missing_file_a_folder_and_what_is_no_text(tmp_path):
    assert "does not exist" in messages(tmp_path / "none.csv")
    assert "name the CSV file in it" in messages(tmp_path)
    (tmp_path / "image.csv").write_bytes(b"\xff\xd8\xff\xe0\0\x10JFIF")
    assert "cannot be read as CSV" in messages(tmp_path / "image.csv")
    assert "its first line has nothing" in messages(table(tmp_path, ""))
    assert "no image to train on" in messages(table(tmp_path, "path,label\n"))


def test_missing_and_doubled_columns_are_named_together(tmp_path):
    said = messages(table(tmp_path, "file,class\n1.jpg,a\n"))
    assert "no column 'path'; its first line has 'file', 'class'" in said
    assert "no column 'label'" in said
    assert "two columns 'label'" in messages(table(tmp_path, "path,label,label\n1.jpg,a,b\n"))


def test_bad_rows_are_named_by_their_line(tmp_path):
    rows = ["path,label,split", "1.jpg,a,train", ",b,train", "3.jpg,,valid", "4.jpg,a,tset", "5.jpg", ""]
    said = messages(table(tmp_path, "\n".join(rows)))
    assert "empty cells: row 3 ('path'); row 4 ('label'); row 6 ('label')" in said
    assert "row 5: 'tset', did you mean 'test'?" in said


def test_missing_images_are_counted_and_the_first_named(tmp_path):
    rows = "".join(f"{i}.jpg,{'ab'[i % 2]}\n" for i in range(1, 13))
    said = messages(table(tmp_path, f"path,label\n{rows}"))
    assert f"row 6: '{tmp_path / '5.jpg'}'" in said
    assert "; and 3 more" in said
    assert "row 11" not in said


def test_an_image_listed_twice_would_leak_from_part_to_part(tmp_path):
    said = messages(table(tmp_path, "path,label,split\n1.jpg,a,train\n2.jpg,b,train\n1.jpg,a,test\n"))
    assert "twice: row 4: " in said
    assert "as in row 2" in said


def test_classes_must_be_two_and_known_from_training(tmp_path):
    assert "1 class to train on, 'a'" in messages(table(tmp_path, "path,label\n1.jpg,a\n2.jpg,a\n"))
    said = messages(table(tmp_path, "path,label,split\n1.jpg,a,train\n2.jpg,b,train\n3.jpg,c,test\n"))
    assert "train lacks: row 4: 'c'" in said
