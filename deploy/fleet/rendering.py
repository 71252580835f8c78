"""Templates rendered the way Ansible renders them, so that both engines put the same bytes on a host."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jinja2

TEMPLATES = Path(__file__).resolve().parents[2] / "templates"


class RenderingError(RuntimeError):
    """A template cannot be rendered; the text names template, cause and remedy, never a value."""


@functools.cache
def _environment() -> jinja2.Environment:
    # Ansible's defaults: trim_blocks on, lstrip_blocks off, unknown names refused. An included template
    # loses its final newline there: write `{% include '…' +%}` where the line must end.
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        autoescape=False,  # noqa: S701 -- configuration files, no HTML
    )
    environment.filters["hash"] = _hash
    return environment


def _hash(text: str, algorithm: str) -> str:
    """Ansible's filter of that name: the digest of a text, in hexadecimal digits."""
    return hashlib.new(algorithm, text.encode()).hexdigest()


def render(template: str, variables: Mapping[str, Any]) -> str:
    """Text of `templates/<template>` with a host's variables.

    Raises RenderingError when the template is missing or asks for a variable that the host has not.
    """
    try:
        environment = _environment()
        text = environment.get_template(template).render(variables)
        source = (TEMPLATES / template).read_text(encoding="utf-8")
        # As Ansible does: the whole text ends with as many newlines as the template, at least.
        return text + "\n" * (_final_newlines(source) - _final_newlines(text))
    except jinja2.UndefinedError as error:
        raise RenderingError(
            f"templates/{template}: {error.message}; set it in group_vars or correct the template"
        ) from None
    except jinja2.TemplateNotFound as error:
        raise RenderingError(f"templates/{error.name} does not exist (wanted by {template})") from None


def by_ansible(loader: Any, templar: Any, variables: Mapping[str, Any]) -> Callable[[str], str]:
    """What `render` does, by Ansible itself for its actions; errors are AnsibleError.

    loader, templar: the action's own.
    """
    from ansible.plugins.loader import lookup_loader

    lookup = lookup_loader.get("ansible.builtin.template", loader=loader, templar=templar)
    return lambda template: str(lookup.run([str(TEMPLATES / template)], variables=variables)[0])


def _final_newlines(text: str) -> int:
    return len(text) - len(text.rstrip("\n"))
