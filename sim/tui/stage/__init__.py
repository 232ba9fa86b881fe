"""The talk: a few beats on twelve rows, each a run of a small fleet that plays by itself."""
