"""A fleet of real systemd and sshd hosts on this machine, for trying out and testing deployments.

Hosts are podman containers that run systemd as PID 1 on their own network with fixed addresses. What differs
from a real host, so that nobody has to find out the hard way:

- All hosts share this machine's kernel and clock. Nobody in a host may set the clock; chrony runs with `-x`.
- `net.core.*`, `vm.*` and `kernel.*` are the machine's: `net.core.*` cannot be written in a host, the others
  would change the machine. `net.ipv4.*` belongs to the host.
- A reboot gives a new boot id and an empty `/run`, but the monotonic clock goes on.
"""
