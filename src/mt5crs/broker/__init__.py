"""Brokers behind the gateway: one interface, a simulated broker and a MetaTrader 5 terminal."""
