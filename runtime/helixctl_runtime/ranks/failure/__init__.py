"""A failed run: what each rank reported, its state, and which failure is the cause of the others."""
