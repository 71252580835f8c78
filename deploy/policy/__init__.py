"""Policy as code: rules that a fleet's configuration keeps, or a deployment of it is refused.

Rules (`rules/`) are pure: facts in, findings out. `gathering` looks the facts up, `waivers` reads what is
allowed for a time, `judging` decides, `enforcing` does all of it for a fleet.
"""
