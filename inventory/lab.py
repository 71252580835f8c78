"""pyinfra inventory of the lab: exactly what Ansible reads from lab.yml."""

from deploy.inventory import hosts_of

lab = hosts_of(__file__)
