"""Wrong engines: each breaks one rule on purpose, and a named checker must catch it. Never the default."""
