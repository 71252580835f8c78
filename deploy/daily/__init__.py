"""The report of a day: what the broker's books, the gateways' journals, Prometheus and the Hub's record say.

`on_host` looks on the hosts, `asking` collects, `reckoning` reckons (pure), `page` writes HTML and text.
"""
