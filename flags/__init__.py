"""What the feature flags say, and what that makes the engine do; every value goes through the real evaluator."""
