"""A finished run on the bundled digits."""

EPOCHS = 8
