"""Recipes: from a task to a trained and measured team, top to bottom."""
