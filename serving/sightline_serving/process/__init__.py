"""Triton as a process: found on this machine, started, supervised, ended in every case."""
