"""More was sent than is read, and the connection ends: libzmq 4.3.5 may end the whole process.

Its engine stops reading when the pipe is full. If the connection ends meanwhile, and a heartbeat of its own
is due before the pipe is read, an assertion fails (`!_io_error` in stream_engine_base.cpp). So it can be with
a client that floods the gateway, and with a subscriber that is behind when the gateway restarts.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

FLOODED = """
import socket
import zmq
from zmq.utils.monitor import recv_monitor_message
from mt5crs.gateway.authenticator import Authenticator
from mt5crs.protocol.curve import new_keypair, secure_client, secure_server
context = zmq.Context()
Authenticator(context, lambda *_: "", lambda _: False, lambda *_: None).start()
public, secret = new_keypair()
server = context.socket(zmq.ROUTER)
secure_server(server, secret)
server.setsockopt(zmq.RCVHWM, 10)
told = server.get_monitor_socket(zmq.EVENT_ACCEPTED)
port = server.bind_to_random_port("tcp://127.0.0.1")
clients = zmq.Context()
for _ in range(5):
    client = clients.socket(zmq.DEALER)
    secure_client(client, public, new_keypair()[1])
    client.connect(f"tcp://127.0.0.1:{port}")
    assert client.poll(60_000, zmq.POLLOUT)
    sent = 0
    while sent < 3000 and client.poll(200, zmq.POLLOUT):
        client.send(bytes(1000), zmq.NOBLOCK)
        sent += 1
    assert sent > 10
    fd = recv_monitor_message(told)["value"]
    socket.fromfd(fd, socket.AF_INET, socket.SOCK_STREAM).shutdown(socket.SHUT_RDWR)  # as the guard
lone = context.socket(zmq.PULL)
lone.bind("inproc://nobody")
lone.poll(3000)  # longer than a heartbeat's interval
print("alive", flush=True)
import os
os._exit(0)
"""

BEHIND = """
import socket
import zmq
from zmq.utils.monitor import recv_monitor_message
from mt5crs.client.connection import Peer
from mt5crs.client.subscription import Subscription
from mt5crs.gateway.authenticator import Authenticator
from mt5crs.protocol.curve import new_keypair, secure_server
gateway = zmq.Context()
Authenticator(gateway, lambda *_: "", lambda _: False, lambda *_: None).start()
public, secret = new_keypair()
server = gateway.socket(zmq.XPUB)
secure_server(server, secret)
server.setsockopt(zmq.SNDHWM, 100_000)
told = server.get_monitor_socket(zmq.EVENT_ACCEPTED)
port = server.bind_to_random_port("tcp://127.0.0.1")
peer = Peer(
    host="127.0.0.1",
    port=1,
    pub_port=port,
    server_key=public,
    client_name="c",
    secret_key=new_keypair()[1],
)
subscription = Subscription(peer, ["tick."])
assert server.poll(60_000), "nobody subscribed"
server.recv()
for _ in range(20_000):
    server.send_multipart([b"tick.EURUSD", bytes(500)])
lone = gateway.socket(zmq.PULL)
lone.bind("inproc://nobody")
lone.poll(1000)  # until all of it has been sent
fd = recv_monitor_message(told)["value"]
socket.fromfd(fd, socket.AF_INET, socket.SOCK_STREAM).shutdown(socket.SHUT_RDWR)
lone.poll(4000)  # longer than a heartbeat's interval
print("alive", flush=True)
import os
os._exit(0)
"""


@pytest.mark.parametrize("program", [FLOODED, BEHIND], ids=["a flooded server", "a subscriber behind"])
def test_the_process_lives_on(program: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr
