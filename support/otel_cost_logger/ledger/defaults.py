"""The words and defaults of the durable processor's settings, apart from it so that reading them loads nothing."""

SYNC_NORMAL = "normal"  # a span survives the death of the process
SYNC_FULL = "full"  # and that of the machine
DEFAULT_KEEP_DAYS = 183.0  # six months
