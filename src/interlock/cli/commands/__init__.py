"""Commands, a file per noun: parse, ask the server, print."""
