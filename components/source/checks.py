"""What everything that is fetched must keep to."""

from modelyard.components.errors import DataError


def check_sha256(address: str, found: str, expected: str | None) -> None:
    """Compare a file's SHA-256 with what the configuration says; nothing when it says none.

    Raises:
        DataError: they differ.
    """
    if expected not in (None, found):
        raise DataError(
            f"The SHA-256 of {address} is {found} and data.sha256 says {expected}: it is another file, or "
            "was changed or damaged. Get the right file, or correct data.sha256 if you trust this one."
        )


def check_size(address: str, size: int, limit: int) -> None:
    """Compare the bytes that something has, or has so far, with the most that it may have.

    Raises:
        DataError: there are more.
    """
    if size > limit:
        raise DataError(
            f"{address} has {size:,} bytes or more, and data.max_bytes allows {limit:,}. Raise "
            "data.max_bytes if that is right."
        )
