"""Maintenance of a machine and a store: `garbage_collection` (`modelyard gc`) and `doctor`."""
