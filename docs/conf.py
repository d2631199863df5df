"""The configuration of Sphinx for `make docs`: pages from here, sections of README.md, and docstrings."""

import os
import subprocess
import sys

import mlxdist
from mlxdist import cli

project = "mlxdist"
version = release = mlxdist.__version__
author = "the mlxdist developers"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["substitution"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints = "signature"
python_use_unqualified_type_names = True
napoleon_use_rtype = False

html_theme = "furo"
html_title = f"mlxdist {version}"
html_copy_source = False


def help_of(command: str) -> str:
    """What a subcommand prints for --help, as text for a page."""
    environ = os.environ | {"COLUMNS": "100", "NO_COLOR": "1"}
    run = [sys.executable, "-m", "mlxdist", command, "--help"]
    printed = subprocess.run(run, capture_output=True, text=True, check=True, env=environ).stdout
    return f"**mlxdist {command}**\n\n```text\n{printed}```\n"


myst_substitutions = {"commands": "\n".join(map(help_of, cli.COMMANDS))}
