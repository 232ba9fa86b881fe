"""The world around the engine: guests, nodes, scenarios, verdicts, and the faces that show them."""
