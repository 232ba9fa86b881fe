"""What happened: events, the ledger that holds them, the fold, the view, and the folder of a run."""
