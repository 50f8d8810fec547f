"""``pgstow config show``"""

from __future__ import annotations

from rich.text import Text

from pgstow.cli.command import Invocation
from pgstow.cli.formats import safe
from pgstow.cli.output import Outcome, safe_lines
from pgstow.config.finding import require_settings_file
from pgstow.config.reading import read_settings
from pgstow.config.showing import settings_document, yaml_text

__all__ = ["config_show_command"]


def config_show_command(invocation: Invocation) -> Outcome:
    """Show the settings in force, with every default filled in, as a settings file.

    References to secrets are shown as they are written; nothing is looked up.
    """
    path = require_settings_file(invocation.config_file, invocation.environ)
    document = settings_document(read_settings(path))
    text = f"# {safe(str(path))} with its defaults\n{safe_lines(yaml_text(document))}"
    return Outcome(document={"file": str(path), "settings": document}, view=[Text(text.rstrip("\n"))])
