"""An Inf host leaves the fleet: stopped, its data fetched, its keys revoked, the rest removed."""
