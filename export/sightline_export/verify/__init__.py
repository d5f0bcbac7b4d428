"""The proof, hop by hop, that a model answers the same from the trainer to every client."""
