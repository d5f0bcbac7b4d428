"""Sightline's contract and client: the model card, the reference reformatting, the SDK and the command line."""
