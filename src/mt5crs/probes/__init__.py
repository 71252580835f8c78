"""Questions of the release tool to a service of its host, as commands."""
