"""The Hub's service: listens to every gateway, keeps what it hears, shows it. It can change nothing.

Trading does not notice whether it runs: it has one observer's connection to each gateway, and nobody asks it
anything. What it missed it reads again from the broker's books; what no book tells, it calls unknown.
"""
