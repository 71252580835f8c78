"""Incidents: recorded on the Hub, told, and reported from the records."""
