"""What lies in the bucket, against what the topic says."""
