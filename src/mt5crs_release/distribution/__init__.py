"""How bundles come to a host: the release store on the Hub, fetching, what has come so far."""
