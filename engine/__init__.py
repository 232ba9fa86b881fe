"""What happens to the memory of one incarnation; knows no flag, no fleet and no screen."""
