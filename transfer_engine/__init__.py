"""Move files between storages by third-party copy: queue, schedule, retry, verify, report."""
