"""INGEST_WORKERS: several processes on one port (docs/decisions/0022). With one, nothing here runs."""
