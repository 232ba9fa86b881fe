"""One machine: its guests, their pauses, armed faults, and what is done after a crash."""
