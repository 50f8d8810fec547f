"""``pgstow config schema``"""

from __future__ import annotations

import json

from rich.text import Text

from pgstow.cli.command import Invocation
from pgstow.cli.output import Outcome
from pgstow.config.schema import json_schema

__all__ = ["config_schema_command"]


def config_schema_command(invocation: Invocation) -> Outcome:  # noqa: ARG001  every command is given one
    """Print the JSON Schema of the settings file, for editors that complete keys and underline typos.

    Save it and begin the file with: # yaml-language-server: $schema=pgstow.schema.json
    """
    schema = json_schema()
    return Outcome(document={"json_schema": schema}, view=[Text(json.dumps(schema, indent=2))])
