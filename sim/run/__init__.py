"""Running scenarios: one from its scenario to its verdict, and many at a time."""
