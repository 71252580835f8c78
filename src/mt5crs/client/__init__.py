"""The one client library of the gateway, used by every program of the fleet."""
