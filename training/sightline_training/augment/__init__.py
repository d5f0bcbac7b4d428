"""Distortions of training batches, after `reformat`; nothing validated, tested or served passes here."""
