"""Health command of the monitoring part: does each address given answer 200?

    ready.py [--rules FILE PROMETHEUS] ADDRESS…

--rules: and has that Prometheus read FILE, which says its digest in a rule of its own?
Exit status: 0 healthy, 1 unhealthy (no answer, another status, other rules), 75 still starting (503).
"""

import http.client
import pathlib
import re
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


def read(file: str, prometheus: str) -> "tuple[int, str]":
    """Exit status for the rules in a file, and a sentence: what it refuses leaves the former in force."""
    try:
        rules = pathlib.Path(file).read_text(encoding="utf-8")
        wanted = re.findall(r"labels: \{digest: ([0-9a-f]{64})\}", rules)[-1]
    except (OSError, IndexError) as error:
        return UNHEALTHY, f"{file} does not say which rules it has: {error!r}"
    url = f"{prometheus}/api/v1/rules?type=record"
    try:
        with _open(url, timeout=3) as answer:
            told = answer.read().decode(errors="replace")
    except urllib.error.HTTPError as error:
        return (STARTING if error.code == 503 else UNHEALTHY), f"{url} answers {error.code}"
    except OSError as error:
        return UNHEALTHY, f"{url} does not answer: {getattr(error, 'reason', error)}"
    if wanted in told:
        return HEALTHY, f"{file} is in force"
    return UNHEALTHY, f"{prometheus} has other rules in force than {file}: see `journalctl -u prometheus`"


def main(words: "list[str]") -> int:
    """Print a line per address that is not ready; the worst exit status of all."""
    answers = []
    if words[:1] == ["--rules"]:
        answers.append(read(*words[1:3]))
        words = words[3:]
    answers += [look(url) for url in words]
    for status, sentence in answers:
        if status != HEALTHY:
            print(sentence)
    statuses = [status for status, _ in answers]
    return UNHEALTHY if UNHEALTHY in statuses else max(statuses, default=HEALTHY)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
