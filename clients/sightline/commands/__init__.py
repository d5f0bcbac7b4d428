"""The subcommands of the base install: each parses, calls one function and prints."""
