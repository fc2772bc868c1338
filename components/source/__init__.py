"""Data sources: identifies a source without fetching it, and fetches it."""
