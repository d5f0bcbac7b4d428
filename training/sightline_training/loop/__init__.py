"""The loop: Lightning fits, batches from memory, and the features of a frozen backbone."""
