"""One rank of an outer launcher: it joins the others through a store, and ends with them when one fails."""
