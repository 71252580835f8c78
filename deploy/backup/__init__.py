"""Backups of a fleet: copied from hosts that trade, encrypted here, kept on the Hub, proven by a drill.

`on_host` runs on the hosts, `storing` asks them, `copies` reads a copy, `proving` compares it with the
broker's books.
"""
