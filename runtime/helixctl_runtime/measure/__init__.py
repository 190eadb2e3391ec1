"""Steps: compiled programs are walked or replayed, and timed by watches that cost as little as they can."""
