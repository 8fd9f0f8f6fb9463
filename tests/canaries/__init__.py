"""Secrets that can be told from everything else, and the search for them in whatever a service leaves behind."""
