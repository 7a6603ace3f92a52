"""Protocols: who is asked what, and who reads whom."""
