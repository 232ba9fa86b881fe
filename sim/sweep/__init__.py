"""The sweep: a scenario once clean, to see which fault points it passes, then once for each of them and each kind."""
