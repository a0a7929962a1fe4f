"""`spillway-uploader redrive`."""
