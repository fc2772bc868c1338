"""The step `evaluate`: score candidate and champion on the same rows and decide."""
