"""The queue on disk: contract (`api`), schema (`tables`), group commit (`writer`), SQLite (`sqlite`)."""
