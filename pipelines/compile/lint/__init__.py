"""What is checked of a compiled pipeline before it is sent, and the traps that it must not step into."""
