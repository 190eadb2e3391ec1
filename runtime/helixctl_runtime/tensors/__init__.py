"""The numbers of weights and inputs: from files in whatever names and shapes, from the seed, or from a formula."""
