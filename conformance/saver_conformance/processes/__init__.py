"""Ranks, reload servers, traces and injected faults: everything that is a process."""
