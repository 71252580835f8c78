"""The HTTP end point of every service changes nothing, whoever asks."""

import http.client
from collections.abc import Iterator

import pytest

from mt5crs.service.endpoint import Answer, Endpoint, Request
from mt5crs.service.metrics import Registry


def site(request: Request) -> Answer:
    """A site that would answer anything."""
    return Answer("200 OK", "text/plain", f"asked for {request.path}\n".encode())


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    endpoint = Endpoint("127.0.0.1", 0, Registry(), lambda: {"healthy": True}, site=site)
    yield endpoint.port
    endpoint.close()


@pytest.mark.parametrize("path", ["/", "/health", "/metrics", "/-/reload"])
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "get", ""])
def test_what_is_no_get_is_refused(port: int, method: str, path: str) -> None:
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    client.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
    client.endheaders()
    answer = client.getresponse()
    assert (answer.status, answer.read()) == (405, b"only GET\n")
    client.close()
