"""What stores a job's records, and keeps its state: the part that replay and redrive share."""
