"""The numbers of weights and inputs: from files with any names and shapes, from the seed, or from a formula."""
