"""Front door in the terminal: parse, call, print."""
