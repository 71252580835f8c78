"""pyinfra inventory of production: exactly what Ansible reads from production.yml."""

from deploy.inventory import hosts_of

production = hosts_of(__file__)
