"""Numbers of a plan as people say them."""

PREFIXES = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def count(number: float) -> str:
    """Return a count with a prefix: 24.2 M."""
    unit, prefix = next(((unit, prefix) for unit, prefix in PREFIXES if number >= unit), (1.0, ""))
    return f"{number / unit:.3g} {prefix}".rstrip()


def size(amount: float) -> str:
    """Return bytes: 670 kB."""
    return f"{count(amount)}B" if amount >= 1e3 else f"{amount:.0f} B"


def seconds(amount: float) -> str:
    """Return a time: 12.3 ms, 4.5 s, 3.2 min, 5.1 h."""
    if amount < 1:
        return f"{amount * 1e3:.3g} ms"
    if amount < 120:
        return f"{amount:.3g} s"
    if amount < 7200:
        return f"{amount / 60:.3g} min"
    return f"{amount / 3600:.4g} h"


def dollars(amount: float) -> str:
    """Return money: 12.30 USD."""
    return f"{amount:,.2f} USD" if amount >= 0.01 else "< 0.01 USD"
