"""The ledger: the file in which the durable processor keeps every span, and what is done with it."""
