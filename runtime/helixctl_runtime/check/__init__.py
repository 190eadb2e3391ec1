"""The output of a run: held against the unpartitioned model in float64, and written to a file."""
