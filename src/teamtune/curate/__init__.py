"""Curate: turns and their credit become training rows, and every dropped turn is counted."""
