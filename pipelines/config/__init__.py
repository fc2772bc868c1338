"""The configuration: its sections, the layers that it is read from, and what is wrong with it."""
