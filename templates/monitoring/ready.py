"""Health command of the monitoring part: does each address given answer 200?

Exit status: 0 healthy, 1 unhealthy (no answer, or another status), 75 still starting (503).
"""

import http.client
import sys
import urllib.error
import urllib.request

HEALTHY, UNHEALTHY, STARTING = 0, 1, 75


class _FromItself(urllib.request.HTTPHandler):
    """Asks from the address that is asked: a service need not let in the interface's first one."""

    def http_open(self, request):
        host = http.client.HTTPConnection(request.host).host
        return self.do_open(http.client.HTTPConnection, request, source_address=(host, 0))


# Never through a proxy that the environment may name: the addresses are the host's own.
_open = urllib.request.build_opener(urllib.request.ProxyHandler({}), _FromItself()).open


def look(url: str) -> "tuple[int, str]":
    """Exit status for one address, and a sentence."""
    try:
        with _open(url, timeout=3) as answer:
            answer.read()  # to the end: a peer that hangs up is an error in the server's journal
            status = answer.status
    except urllib.error.HTTPError as error:
        status = error.code
    except OSError as error:
        return UNHEALTHY, f"{url} does not answer: {getattr(error, 'reason', error)}"
    if status == 200:
        return HEALTHY, f"{url} is ready"
    return (STARTING if status == 503 else UNHEALTHY), f"{url} answers {status}"


def main(urls: "list[str]") -> int:
    """Print a line per address that is not ready; the worst exit status of all."""
    answers = [look(url) for url in urls]
    for status, sentence in answers:
        if status != HEALTHY:
            print(sentence)
    statuses = [status for status, _ in answers]
    return UNHEALTHY if UNHEALTHY in statuses else max(statuses, default=HEALTHY)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
