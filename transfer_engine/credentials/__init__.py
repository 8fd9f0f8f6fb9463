"""What is shown to the storages of a transfer: its own tokens, its user's proxy, or the engine's own credential."""
