"""What the server and those who deploy it and send requests to it have to agree on."""

PORT = 8501
"""Of a server's container, and the default of `serving.port`."""
GOLDEN_HEADER = "x-modelyard-golden"
"""Marks a golden request: the server's metrics count it apart from those of clients."""
