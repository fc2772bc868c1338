"""The step `evaluate`: scores candidate and champion on the same examples, and decides."""
