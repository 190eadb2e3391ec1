"""The reports of a run: of one plan, of the comparison of several, and of the environment."""
