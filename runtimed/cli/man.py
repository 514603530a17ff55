"""runtimectl man: the manual, made from the commands and the settings themselves.

runtimectl(1), a page for each verb, runtimed(8) and runtimed.toml(5). Nothing of it is written twice: what a page says
is a verb's help, an option's help, a setting's meaning.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from runtimed import __version__
from runtimed.cli import PROGRAM, VERBS, output
from runtimed.cli.options import Session, common
from runtimed.cli.roff import Page
from runtimed.cli.verb import Verb

if TYPE_CHECKING:
    from collections.abc import Callable

STATUSES = (
    ("0", "Success."),
    ("1", "The function failed; for `doctor`: something is missing."),
    ("2", "The command line is wrong."),
    ("3", "The daemon cannot be reached, or does not answer in time."),
    ("4", "The daemon refused."),
    ("130", "Interrupted."),
)
VARIABLES = (
    ("RUNTIMED_ADDRESS", "Where the daemon is: `unix:/path` or `host:port`. Without it /run/runtimed/control.sock."),
    ("RUNTIMED_KEY", "The key that TCP needs."),
    ("NO_COLOR", "When it is set and not empty, nothing is coloured."),
)
FILES = (
    ("/etc/runtimed/runtimed.toml", "Settings; see runtimed.toml(5)."),
    ("/var/lib/runtimed", "Functions, their code, logs and keys."),
    ("/run/runtimed/control.sock", "Where runtimectl(1) and the SDK ask."),
)


@click.command(
    "man",
    cls=Verb,
    examples=(
        ("runtimectl man | man -l -", "Read the manual of runtimectl:"),
        ("runtimectl man runtimed.toml.5 | man -l -", "Another page:"),
        ("runtimectl man --directory /usr/local/share/man", "Write all pages where man(1) looks for them:"),
    ),
)
@click.argument("page", default=f"{PROGRAM}.1", shell_complete=lambda *given: complete(given[2]))
@click.option(
    "--directory",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Write all pages below it, into man1, man5 and man8.",
)
@common
def command(session: Session, page: str, directory: Path | None) -> None:
    """Print the page PAGE of the manual (default: runtimectl.1), or write all of them."""
    made = pages()
    if directory is not None:
        written = []
        for name, make in made.items():
            path = directory / f"man{name[-1]}" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(make())
            written.append(str(path))
        if session.as_json:
            output.as_json({"Written": written})
        else:
            click.echo("\n".join(written))
        return
    if page not in made:
        raise click.UsageError(f"there is no page {page!r}. There are {', '.join(made)}.")
    text = made[page]()
    if session.as_json:
        output.as_json({"Page": page, "Text": text})
    else:
        click.echo(text, nl=False)


def complete(incomplete: str) -> list[str]:
    return [name for name in pages() if name.startswith(incomplete)]


def pages() -> dict[str, Callable[[], str]]:
    """What makes each page, by its file's name."""
    made: dict[str, Callable[[], str]] = {f"{PROGRAM}.1": _program}
    for verb in VERBS:
        made[f"{PROGRAM}-{verb}.1"] = lambda verb=verb: _verb(verb)  # type: ignore[misc]
    return made | {"runtimed.8": _daemon, "runtimed.toml.5": _settings}


def _page(name: str, section: int, what: str) -> Page:
    """Dated as the build is where that is told (reproducible-builds.org), else today."""
    seconds = os.environ.get("SOURCE_DATE_EPOCH", "")
    date = datetime.fromtimestamp(int(seconds), UTC) if seconds.isdigit() else datetime.now(UTC)
    return Page(name, section, what.rstrip("."), version=f"runtimed {__version__}", date=f"{date:%Y-%m-%d}")


def _root() -> Any:
    from runtimed.cli import command as root

    return root


def _program() -> str:
    root = _root()
    page = _page(PROGRAM, 1, root.help)
    page.section("Synopsis")
    page.synopsis(PROGRAM, "[OPTIONS] VERB [ARGUMENTS]")
    page.section("Description")
    page.paragraph(
        "`runtimectl` talks to the daemon runtimed(8) on this machine or, with an address and a key, on another. "
        "Results go to standard output, everything else to standard error. On a terminal tables are fitted to its "
        "width and times are relative; elsewhere everything is printed whole."
    )
    page.section("Verbs")
    for verb, what in VERBS.items():
        page.item(verb, f"{what} See {PROGRAM}-{verb}(1).")
    _options(page, root, click.Context(root, info_name=PROGRAM))
    page.section("Errors")
    page.paragraph(
        "An error names the command to type next. With `--json` it is one line on standard error: "
        '{"error": {"code": CODE, "message": TEXT, "next": COMMAND}}; standard output then has no result.'
    )
    page.section("Exit status")
    for status, meaning in STATUSES:
        page.item(status, meaning)
    page.section("Environment")
    for variable, meaning in VARIABLES:
        page.item(variable, meaning)
    _examples(page, root)
    _see_also(page, *(f"{PROGRAM}-{verb}(1)" for verb in VERBS), "runtimed(8)", "runtimed.toml(5)")
    return page.text()


def _verb(name: str) -> str:
    root = _root()
    above = click.Context(root, info_name=PROGRAM)
    verb = root.get_command(above, name)
    page = _page(f"{PROGRAM}-{name}", 1, VERBS[name])
    page.section("Synopsis")
    ctx = click.Context(verb, info_name=name, parent=above)
    page.synopsis(f"{PROGRAM} {name}", " ".join(verb.collect_usage_pieces(ctx)))
    page.section("Description")
    _help(page, verb)
    if isinstance(verb, click.Group):
        for inner in verb.list_commands(ctx):
            found = verb.get_command(ctx, inner)
            assert found is not None
            below = click.Context(found, info_name=inner, parent=ctx)
            page.subsection(f"{name} {inner} {' '.join(found.collect_usage_pieces(below))}")
            _help(page, found)
    _options(page, verb, ctx)
    _examples(page, verb)
    _see_also(page, f"{PROGRAM}(1)", "runtimed(8)")
    return page.text()


def _daemon() -> str:
    from runtimed.config_text import command_line

    parser = command_line()
    page = _page("runtimed", 8, "the daemon of a self-hosted Lambda")
    page.section("Synopsis")
    page.synopsis("runtimed", "[OPTIONS]")
    page.section("Description")
    page.paragraph(
        "`runtimed` reads its settings as root and becomes the launcher, the one privileged process, which starts the "
        "control plane, the dispatcher and the zygotes, watches them and starts them again. It stays in the foreground."
    )
    page.paragraph(
        "Settings come from a file, the environment and these options; later ones win. See runtimed.toml(5)."
    )
    page.section("Options")
    for action in parser._actions:
        metavar = f" {action.metavar}" if action.metavar else ""
        page.item(", ".join(f"{option}{metavar}" for option in action.option_strings), _sentence(action.help or ""))
    page.section("Signals")
    page.item(
        "SIGTERM, SIGINT", "Running invocations end first, for `node.drain_seconds` at most; then everything ends."
    )
    page.section("Exit status")
    page.item("0", "Ended as it was told to.")
    page.item("78", "A setting is wrong, or the machine lacks something: starting again would not do.")
    page.section("Files")
    for path, what in FILES:
        page.item(path, what)
    _see_also(page, f"{PROGRAM}(1)", f"{PROGRAM}-doctor(1)", "runtimed.toml(5)", "systemd(1)")
    return page.text()


def _settings() -> str:
    from runtimed import config_text

    page = _page("runtimed.toml", 5, "settings of runtimed(8)")
    page.section("Synopsis")
    page.paragraph("/etc/runtimed/runtimed.toml")
    page.section("Description")
    page.paragraph(
        "A TOML file with the sections below. Each setting can also be given as the environment variable named with "
        "it, which wins over the file. What is wrong or unknown is refused at the start, with its name and its source; "
        "`runtimed --check-config` prints the settings in force, `runtimed --print-config` a file with all defaults."
    )
    known = config_text.settings()
    for section, about in config_text.sections().items():
        page.section(f"[{section}]")
        page.paragraph(about)
        for setting in (setting for setting in known if setting.section == section):
            default = config_text.value(setting.default)
            page.item(f"{setting.key} = {default}", f"{setting.text} (`{setting.variable}`)")
    page.section("Example")
    page.example(
        "Another place for code and logs, and no port:", '[node]\nstate_dir = "/srv/runtimed"\n\n[api]\nlisten = ""'
    )
    _see_also(page, "runtimed(8)", f"{PROGRAM}(1)")
    return page.text()


def _help(page: Page, verb: click.Command) -> None:
    for paragraph in (verb.help or "").split("\n\n"):
        page.paragraph(paragraph)


def _options(page: Page, verb: click.Command, ctx: click.Context) -> None:
    page.section("Options")
    for parameter in verb.get_params(ctx):
        record = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) else None
        if record is not None:
            page.item(record[0], record[1] or "As it says.")


def _examples(page: Page, verb: Any) -> None:
    page.section("Examples")
    for line, what in verb.examples:
        page.example(what, line)


def _see_also(page: Page, *names: str) -> None:
    page.section("See also")
    page.paragraph(", ".join(names))


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."
