"""What people write: scenarios, plans, fleets, and every word that they may use in them."""
