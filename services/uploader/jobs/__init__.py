"""What an operator runs beside the live group: replay, verify, redrive, dead-letters, lag. None of them joins it."""
