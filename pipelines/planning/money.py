"""What a run costs: hours times the price of the machine that is paid for.

A price of accelerators alone is a lower bound, as the machine around them comes on top. The small steps
beside `train`, storage, and what leaves the region are not priced: no price list for them was read.
"""

import math

from modelyard.pipelines.planning.hardware import Price
from modelyard.pipelines.planning.quantity import Quantity, unknown

HOUR = 3600.0


def cost(seconds: Quantity, price: Price | None, count: int, spot: bool) -> Quantity:
    """Return the USD of a training.

    Args:
        seconds: how long it takes.
        price: of the accelerator; None when the file has none.
        count: accelerators that are asked for.
        spot: on Spot machines, without preemptions.
    """
    if price and not spot and price.on_demand_counts and count not in price.on_demand_counts:
        return unknown(f"a machine with {count} is to be had on Spot and Flex-start only")
    rate = None if price is None else price.spot if spot else price.on_demand
    if price is None or rate is None or rate == "unknown":
        return unknown("no price is known; --price gives one")
    machines = math.ceil(count / price.count) if price.scope == "vm" else count / price.count
    found = seconds.scaled(rate * machines / HOUR)
    if price.scope == "accelerator":
        return Quantity(
            value=found.value, low=found.low, high=None, why="the accelerator alone; its machine comes on top"
        )
    return found


def at(seconds: Quantity, price: float) -> Quantity:
    """Return the USD at a price per hour that somebody gave."""
    return seconds.scaled(price / HOUR)
