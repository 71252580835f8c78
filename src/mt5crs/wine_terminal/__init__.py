"""The MetaTrader 5 terminal of a gateway on Linux, kept running with its display and Wine's server.

A unit of its own (`mt5crs-terminal`), so that a gateway that is deployed, restarted or killed leaves the
terminal alone, and a terminal that is restarted leaves PING, HALT and leases alone.
"""
