"""Plans as other programs take them: engines' flags, job files, execution traces."""
