"""This machine and what was typed on it: its programs, Ansible's command line, requests to stop."""
