"""`spillway-uploader verify`."""
