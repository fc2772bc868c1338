"""Where the examples come from: how a source is looked at without fetching it, and how it is fetched."""
