"""Local ranks: processes of this machine that the launcher starts, watches and ends."""
