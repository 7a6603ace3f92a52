"""Credit: one number per turn, from grades alone."""
