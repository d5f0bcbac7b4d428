"""What depends on the machine and not on models: files, cache folders, text for one line, processors and GPUs."""
