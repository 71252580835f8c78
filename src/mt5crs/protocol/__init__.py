"""Protocol v1 between the gateway and its clients. Cheap to import; the CURVE helpers are in
`mt5crs.protocol.curve`.
"""
