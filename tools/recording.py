"""Draw `docs/assets/session.svg`: the README's commands and what they print.

`make recording` runs the commands on a server with new data, and draws a terminal with their
output. A test runs the commands and compares their output with the picture, except ids and times.
"""

import asyncio
import html
import io
import tempfile
from pathlib import Path

from credit_testing.pages import blocks, run_commands, without_styles
from credit_testing.server import running_server
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

ROOT = Path(__file__).parent.parent
PICTURE = ROOT / "docs" / "assets" / "session.svg"

# rich's own format loads a font from another host, and browsers do not load fonts for a picture.
_FORMAT = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {{width}} {{height}}" role="img">
<title>The README's commands at a terminal</title>
<desc>{description}</desc>
<style>
.{{unique_id}}-matrix {{{{ font: {{char_height}}px ui-monospace, Menlo, Consolas, monospace }}}}
{{styles}}
</style>
<defs>{{lines}}</defs>
<rect width="{{width}}" height="{{height}}" rx="8" fill="#161b22" stroke="#8b949e"/>
<g transform="translate({{terminal_x}}, {{terminal_y}})">
{{backgrounds}}
<g class="{{unique_id}}-matrix">
{{matrix}}
</g>
</g>
</svg>
"""


def main() -> None:
    """Run the commands and write the picture."""
    with tempfile.TemporaryDirectory() as folder:
        session = asyncio.run(_record(Path(folder)))
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_text(drawn(session))


async def _record(folder: Path) -> str:
    async with running_server(folder) as server:
        return await asyncio.to_thread(recorded, folder, server.address)


def commands() -> list[str]:
    """Return the `credit` commands of the README, in their order."""
    lines = "".join(blocks((ROOT / "README.md").read_text(), "sh")).splitlines()
    return [line for line in lines if line.startswith("credit ")]


def recorded(folder: Path, address: str) -> str:
    """Run the README's commands on a server; return them and their output, with styles."""
    given = commands()
    printed = run_commands(given, folder, {"CREDIT_TARGET": address})
    return "\n".join(
        f"\x1b[32m$\x1b[0m {command}\n{output}"
        for command, output in zip(given, printed, strict=True)
    )


def drawn(session: str) -> str:
    """Return a picture of a session, with its text as the description."""
    console = Console(record=True, width=84, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi(session.rstrip("\n")), soft_wrap=True)
    description = html.escape(without_styles(session), quote=False)
    return console.export_svg(
        theme=MONOKAI,
        code_format=_FORMAT.format(description=description.replace("{", "{{").replace("}", "}}")),
        unique_id="session",
    )


def described(picture: str) -> str:
    """Return the description of a picture."""
    return html.unescape(picture.partition("<desc>")[2].partition("</desc>")[0])


if __name__ == "__main__":
    main()
