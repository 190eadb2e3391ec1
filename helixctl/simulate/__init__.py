"""dag x cluster -> timeline: when each task runs, on which lane of which rank."""
