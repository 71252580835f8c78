"""Go or no-go: may this fleet trade? Decided from what each host, gateway and the Hub say once.

Checks (`checks/`) are pure: what was found out in, findings out. `on_host` runs on the hosts and answers the
one question each is asked, `gathering` asks, `judging` decides.
"""
