"""What every benchmark shares: one run and its result file, the machine, statistics, load, figures."""
