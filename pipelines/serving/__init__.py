"""Models that are served: where their servers are, how to ask them, and rolling out by hand."""
