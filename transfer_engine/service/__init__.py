"""The job service: HTTP in FTS3's dialect, so that Rucio and every FTS client work unmodified."""
