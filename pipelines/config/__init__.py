"""The configuration: its sections, the layers that it is merged from, and its error messages."""
