"""A failed run: what each rank said last, what is known of it beside, and which failure is the cause of the others."""
