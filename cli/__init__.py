"""The terminal: Typer and rich; only here is anything printed."""
