"""Graders: what a text answers, and whether that is right."""
