"""The exit task `explain`: how a run ended and why, in a paragraph: as an artifact, and to a webhook."""
