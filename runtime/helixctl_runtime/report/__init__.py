"""What a run says of itself: the report of one plan, the comparison of several, and the environment of both."""
