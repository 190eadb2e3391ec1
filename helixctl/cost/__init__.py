"""What tasks and dags take: time, bytes moved, memory. Every constant carries its source."""
