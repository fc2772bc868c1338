"""The model store: immutable versions, a champion pointer, a history, in a folder or a bucket."""
