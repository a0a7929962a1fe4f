"""Dead letters as they are read, and `spillway-uploader dead-letters`."""
