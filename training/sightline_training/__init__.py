"""Training: datasets, networks, recipes and the loop that turns them into a run folder."""
