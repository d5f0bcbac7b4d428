"""The run folder: what a finished training leaves, written and read back."""
