"""The status page of the operator's port: what an outage looks like from here, and what to do."""
