"""An array in an .npz: an .npy file of which the header is read first and the rows in batches."""

import math
from collections.abc import Iterator
from tokenize import TokenError
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from modelyard.components.errors import DataError
from modelyard.components.ingest.member import Member

HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}  # 3.0 is for fields with names


class ArrayFile:
    """An array, known by its header.

    Args:
        member: the .npy file.

    Raises:
        DataError: it is none, its rows do not lie one after the other, or it is not as long as it says.
    """

    def __init__(self, member: Member) -> None:
        self._member = member
        self.name = member.name.removesuffix(".npy")
        with member.open() as file:
            self.shape, self.dtype = self._header(file)
            size = file.tell() + math.prod(self.shape) * self.dtype.itemsize
        if size != member.size or min(self.shape, default=0) < 0:
            raise self.refused(f"has {member.size:,} bytes and {size:,} are expected for {self.form}.")

    @property
    def form(self) -> str:
        """Its dtype and shape, to be shown."""
        return f"{self.dtype} of shape {self.shape}"

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize

    def batches(self, rows: int) -> Iterator[NDArray[Any]]:
        """Yield `rows` rows at a time, less in the end.

        Raises:
            DataError: the file is damaged.
        """
        with self._member.open() as file:
            self._header(file)
            for start in range(0, self.shape[0], rows):
                count = min(rows, self.shape[0] - start)
                data = file.read(count * self.row_bytes)
                yield np.frombuffer(data, self.dtype).reshape(count, *self.shape[1:])

    def refused(self, why: str) -> DataError:
        """Return the error that says why it cannot be used, and what to do."""
        return self._member.refused(why)

    def _header(self, file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
        try:
            shape, fortran, dtype = HEADERS[np.lib.format.read_magic(file)](file)
        except (ValueError, KeyError, TypeError, SyntaxError, TokenError) as error:
            raise self.refused(f"is no .npy file of numbers ({error}). Save it with numpy.savez.") from error
        if dtype.hasobject:
            raise self.refused("holds Python objects, and loading them can run code. Save numbers.")
        if fortran:
            raise self.refused("is in the order of Fortran. Save numpy.ascontiguousarray of it.")
        return shape, dtype
