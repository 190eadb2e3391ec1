"""Steps: compiled programs are walked or replayed, and timed with as little overhead as possible."""
