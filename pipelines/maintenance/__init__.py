"""What keeps a machine and a store in order: `garbage_collection` (`modelyard gc`) and `doctor`."""
