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
from modelyard.components.ingest import pickled

BATCH: dict[str, Any] = {
    "labels": [3, 0, 300],
    "data": np.random.default_rng(0).integers(0, 256, (3, 500), np.uint8),
    "filenames": ["a.png", "ä" * 300],
    "nested": {"none": None, "yes": True, "pair": (1, -2)},
}


class Malicious:
    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self._call = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self._call


@pytest.mark.parametrize("python", [2, 3])
def test_a_batch_is_read_as_pickle_itself_reads_it(python, python2_pickle) -> None:
    in_bytes = {key.encode(): value for key, value in BATCH.items()}
    data = python2_pickle(BATCH) if python == 2 else pickle.dumps(in_bytes, protocol=2)
    assert pickle.loads(data, encoding="latin-1").keys() == (BATCH if python == 2 else in_bytes).keys()
    found = pickled.load(data)
    np.testing.assert_array_equal(pickled.array(found.pop("data")), BATCH["data"])
    assert found == {key: value for key, value in BATCH.items() if key != "data"}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("name", ["os.system", "builtins.eval", "subprocess.check_output"])
def test_a_pickle_that_would_run_code_is_refused_and_not_run(tmp_path, protocol, name) -> None:
    module, _, function = name.rpartition(".")
    canary = tmp_path / "canary"
    argument = f"open({str(canary)!r}, 'w')" if name == "builtins.eval" else f"touch {canary}"
    arguments = (["touch", str(canary)],) if module == "subprocess" else (argument,)
    evil = Malicious(getattr(__import__(module), function), *arguments)
    data = pickle.dumps({"data": evil}, protocol)
    pickle.loads(data)
    assert canary.exists()  # it would
    canary.unlink()
    with pytest.raises(DataError, match=r"official files never do\. Nothing of it was run") as caught:
        pickled.load(data)
    assert not canary.exists()
    if protocol >= 2:  # older ones are refused at their first instruction
        assert f"{function}'" in str(caught.value)


def test_what_numpy_calls_is_only_written_down() -> None:
    data = b"\x80\x02cnumpy\ndtype\nU\x08nonsense\x89\x86R."
    with pytest.raises(TypeError, match="nonsense"):
        pickle.loads(data)
    assert pickled.load(data) == pickled.Call("numpy dtype", ("nonsense", False))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not a pickle",
        b"\x80\x02.",
        b"\x80\x02K\x01K\x02.",
        b"\x80\x02u.",
        b"\x80\x02}K\x01K\x02s.",  # a key that is no text
        b"\x80\x02K\x01]b.",
        b"\x80\x02h\x05.",
        b"\x80\x02(K\x01\x86.",  # a tuple across a mark
        b"\x80\x02T" + struct.pack("<i", 2**31 - 1) + b"short",
        b"\x80\x02" + b"K\x01" + b"\x85" * 100_000 + b"}" + b"h\x00s.",
    ],
)
def test_a_damaged_pickle_is_refused(data) -> None:
    with pytest.raises(DataError, match="damaged pickle"):
        pickled.load(data)


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
def test_another_array_than_one_of_bytes_is_refused(value, python2_pickle) -> None:
    loaded = pickled.load(python2_pickle(value))
    with pytest.raises(DataError, match="array"):
        pickled.array(loaded)


def test_an_array_shorter_than_its_shape_is_refused(python2_pickle) -> None:
    data = python2_pickle(np.full((2, 3), 7, np.uint8)).replace(
        b"U\x06" + b"\x07" * 6, b"U\x05" + b"\x07" * 5
    )
    with pytest.raises(DataError, match="damaged array"):
        pickled.array(pickled.load(data))


def test_damaged_bytes_are_read_or_refused_and_nothing_else(python2_pickle) -> None:
    random = np.random.default_rng(0)
    opcodes = [ord(opcode.code) for opcode in pickletools.opcodes]
    small = {**BATCH, "data": BATCH["data"][:, :4]}
    whole = [python2_pickle(small), pickle.dumps(small, 2), pickle.dumps(small, 4)]
    before = sorted(Path.cwd().iterdir()), dict(os.environ)
    for number in range(2000):
        data = bytearray(whole[number % 3])
        for _ in range(random.integers(1, 4)):
            data[random.integers(len(data))] = random.choice([*opcodes, random.integers(256)])
        with suppress(DataError):
            pickled.array(dict(pickled.load(bytes(data)) or {}).get("data"))
    assert (sorted(Path.cwd().iterdir()), dict(os.environ)) == before
