"""The operator's pages, as data of the package: the uploader serves them (`services/uploader/status/manual.py`)."""
