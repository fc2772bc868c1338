"""Pickles of CIFAR-10 are read without calling a function; the values equal those of `pickle`."""

import io
import os
import pickle
import pickletools
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelyard.components.errors import DataError
from modelyard.components.ingest.cifar10 import to_byte_array, unpickle
from modelyard.components.ingest.members import Member

BATCH: dict[str, Any] = {
    "labels": [3, 0, 300],
    "data": np.random.default_rng(0).integers(0, 256, (3, 500), np.uint8),
    "filenames": ["a.png", "ä" * 300],
    "nested": {"none": None, "yes": True, "pair": (1, -2)},
}


def member(data: bytes) -> Member:
    return Member(Path("archive"), "data_batch_1", len(data), lambda: io.BytesIO(data))


class Malicious:
    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self._call = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self._call


@pytest.mark.parametrize("python", [2, 3])
def test_a_batch_is_read_like_pickle_reads_it(python, python2_pickle) -> None:
    data = python2_pickle(BATCH) if python == 2 else pickle.dumps(BATCH, protocol=2)
    assert pickle.loads(data, encoding="latin-1").keys() == BATCH.keys()
    result = dict(zip(BATCH, unpickle(member(data), *BATCH), strict=True))
    np.testing.assert_array_equal(to_byte_array(member(data), result.pop("data")), BATCH["data"])
    assert result == {key: value for key, value in BATCH.items() if key != "data"}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("name", ["os.system", "builtins.eval", "subprocess.check_output"])
def test_a_pickle_that_would_run_code_is_refused_and_not_run(tmp_path, protocol, name) -> None:
    module, _, function = name.rpartition(".")
    marker = tmp_path / "marker"
    argument = f"open({str(marker)!r}, 'w')" if name == "builtins.eval" else f"touch {marker}"
    arguments = (["touch", str(marker)],) if module == "subprocess" else (argument,)
    malicious = Malicious(getattr(__import__(module), function), *arguments)
    data = pickle.dumps({"data": malicious}, protocol)
    pickle.loads(data)
    assert marker.exists()  # pickle runs the code
    marker.unlink()
    with pytest.raises(DataError, match=r"official files never .* No code was run"):
        unpickle(member(data), "data")
    assert not marker.exists()


def test_calls_of_numpy_are_not_executed() -> None:
    malicious = b"cnumpy\ndtype\nU\x08nonsense\x89\x86R"
    with pytest.raises(TypeError, match="nonsense"):
        pickle.loads(b"\x80\x02" + malicious + b".")
    (result,) = unpickle(member(b"\x80\x02}U\x04data" + malicious + b"s."), "data")
    assert result.arguments == ("nonsense", False)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not a pickle",
        b"\x80\x02.",
        b"\x80\x02K\x01K\x02.",
        b"\x80\x02u.",
        b"\x80\x02}K\x01K\x02s.",  # a key that is not text
        b"\x80\x02K\x01]b.",
        b"\x80\x02h\x05.",
        b"\x80\x02(K\x01\x86.",  # a tuple across a mark
        b"\x80\x02T" + struct.pack("<i", 2**31 - 1) + b"short",
        b"\x80\x02" + b"K\x01" + b"\x85" * 100_000 + b"}" + b"h\x00s.",
        b"\x80\x02}K\x01" + b"q\x00h\x00\x86" * 40 + b"K\x01s.",  # a key whose hash takes exponential time
        b"\x80\x02Nr\xff\xff\xff\x7f0.",  # a memo index for which pickle in C allocates 32 GiB
    ],
)
def test_a_damaged_pickle_is_refused(data) -> None:
    with pytest.raises(DataError, match=r"damaged pickle|without data"):
        unpickle(member(data), "data")


@pytest.mark.parametrize(
    "value",
    [
        np.zeros((2, 3), np.float32),
        np.zeros((2, 3), np.int8),
        np.asfortranarray(np.zeros((2, 3), np.uint8)),
        np.array([{"a": 1}], object),
        [1, 2],
        None,
    ],
)
def test_an_array_that_is_not_bytes_is_refused(value, python2_pickle) -> None:
    data = member(python2_pickle({"data": value}))
    with pytest.raises(DataError, match="array"):
        to_byte_array(data, *unpickle(data, "data"))


def test_an_array_shorter_than_its_shape_is_refused(python2_pickle) -> None:
    pickled = python2_pickle({"data": np.full((2, 3), 7, np.uint8)})
    data = member(pickled.replace(b"U\x06" + b"\x07" * 6, b"U\x05" + b"\x07" * 5))
    with pytest.raises(DataError, match="damaged array"):
        to_byte_array(data, *unpickle(data, "data"))


def test_damaged_bytes_raise_only_data_errors(python2_pickle, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    opcodes = [ord(opcode.code) for opcode in pickletools.opcodes]
    small = {**BATCH, "data": BATCH["data"][:, :4]}
    pickles = [python2_pickle(small), pickle.dumps(small, 2), pickle.dumps(small, 4)]
    before = sorted(Path.cwd().iterdir()), dict(os.environ)
    for number in range(2000):
        data = bytearray(pickles[number % 3])
        for _ in range(random.integers(1, 4)):
            data[random.integers(len(data))] = random.choice([*opcodes, random.integers(256)])
        with suppress(DataError):
            to_byte_array(member(b""), *unpickle(member(bytes(data)), "data"))
    assert (sorted(Path.cwd().iterdir()), dict(os.environ)) == before
