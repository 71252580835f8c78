"""The gateway: the only way to the broker. One thread owns the terminal; network and authenticator never wait
for it.
"""
