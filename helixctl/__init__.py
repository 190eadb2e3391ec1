"""helixctl: compile two-level attention partition plans into proved execution DAGs, and run them."""

__version__ = "0.1.0"
