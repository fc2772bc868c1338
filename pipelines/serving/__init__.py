"""Models that are served: where their servers are, how to request predictions, and rolling out by hand."""
