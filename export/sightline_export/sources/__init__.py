"""Where a candidate comes from: a run, or a library's network that was trained elsewhere."""
