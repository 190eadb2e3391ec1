"""Measuring what a machine takes for the tasks of a dag: the numbers that replace the cost model's defaults."""
