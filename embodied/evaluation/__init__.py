"""What was measured: success with intervals, the held-out instructions, and the claims ledger."""
