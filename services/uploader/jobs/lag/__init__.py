"""`spillway-uploader lag`."""
