"""What happened in a run: events, the ledger that holds them, the fold, the view, and the run folder."""
