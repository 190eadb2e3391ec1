"""Communication: the sets of ranks that meet, and the call that each exchange of a program becomes."""
