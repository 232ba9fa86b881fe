"""What a rollout of the flag would do: rehearsed, forecast, measured."""
