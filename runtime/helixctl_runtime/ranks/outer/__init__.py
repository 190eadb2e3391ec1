"""One rank of an outer launcher: it meets the others in a store, hears why a run has failed, and ends with them."""
