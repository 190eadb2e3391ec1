"""Calibration: measure the kernels and collectives of a machine, which replace the defaults of the cost model."""
