"""Training: one frozen base, an adapter per agent, all of them in one joint fit."""
