"""Schema history, applied at start by `transfer_engine.store.schema`."""
