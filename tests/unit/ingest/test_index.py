import pytest

from modelyard.components.errors import DataError
from modelyard.components.ingest.index import read_indexes

FILES = ["1.png", "2.png"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("i.csv", b"path,label\n", "has no rows"),
        ("i.csv", b"path,label,Label\n", "a duplicate column"),
        ("i.csv", b"path,label\n1.png\n", "Line 2 of i.csv has 1 values"),
        ("i.csv", b"path,label\n\xff,1\n", "is not UTF-8"),
        ("i.csv", b'path,label\n1.png,"cat\n', "is not CSV"),
        ("i.csv", b"path,label\n../1.png,cat\n/1.png,cat\n2.png,\n,cat\n", "line 2 of i.csv has the path"),
        ("i.csv", b"path,label\n../1.png,cat\n/1.png,cat\n2.png,\n,cat\n", "line 5 of i.csv has no path"),
        ("i.csv", b"path,label\n1.png,cat\n./1.png,cat\n", "the same path as another row"),
        ("i.csv", b"path,label,split\n1.png,cat,dev\n", "the split 'dev'"),
        ("i.jsonl", b"{", "Line 1 of i.jsonl is not JSON"),
        ("i.jsonl", b"[" * 100_000, "Line 1 of i.jsonl is not JSON"),
        ("i.jsonl", b"[]", "is not a JSON object"),
        ("i.jsonl", b'{"path": "1.png", "label": ["a", "b"]}', "the label ['a', 'b']"),
        ("i.jsonl", b'{"path": "1.png", "label": 0.5}', "problem: regression"),
    ],
)
def test_an_invalid_index_is_refused_with_the_line(name, content, message) -> None:
    with pytest.raises(DataError) as error:
        read_indexes({name: content}, FILES, "classification")
    assert message in str(error.value)


@pytest.mark.parametrize("target", ["", "nan", "1e99", "many"])
def test_a_regression_target_that_is_not_a_number_is_refused(target) -> None:
    with pytest.raises(DataError, match=r"line 2 of i\.csv has the target"):
        read_indexes({"i.csv": f"path,target\n1.png,{target}\n".encode()}, FILES, "regression")


@pytest.mark.parametrize("content", [b"", b"1.png,cat\n", b"path,text\n", b"label\n"])
def test_a_table_without_path_and_label_is_not_an_index(content) -> None:
    assert read_indexes({"i.csv": content}, FILES, "classification") is None


def test_paths_are_relative_to_the_index_or_else_to_the_source() -> None:
    content = b"path,label\n1.png,a\n2.png,b\n"
    result = read_indexes({"x/i.csv": content}, ["1.png", "x/1.png", "2.png"], "classification")
    assert result is not None
    assert dict(result.targets) == {"x/1.png": ("all", 0), "2.png": ("all", 1)}


def test_a_file_that_does_not_exist_is_missing() -> None:
    result = read_indexes({"i.csv": b"path;label\n1.png;a\n3.png;b\n"}, FILES, "classification")
    assert result is not None
    assert (result.split_target("1.png"), result.split_target("2.png"), list(result.missing)) == (
        ("all", 0),
        None,
        ["3.png"],
    )
    assert result.missing["3.png"].endswith("Add the file, or remove the row.")
