"""``python -m helixctl``."""

from helixctl.cli.main import main

main()
