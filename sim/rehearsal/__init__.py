"""Rollout rehearsals: a plan, compiled to scenario steps, taken stage by stage to a go or no-go."""
