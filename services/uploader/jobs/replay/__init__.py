"""`spillway-uploader replay`."""
