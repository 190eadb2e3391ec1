"""Communication: the sets of ranks that take part in collectives, and the call for each exchange of a program."""
