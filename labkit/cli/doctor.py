"""``labkit doctor``: what is installed and found here, and how to mend what is missing."""

import click

from labkit.cli._output import json_option, only_results_on_stdout


@click.command()
@click.option("--deep", is_flag=True, help="Read every model file through (a second or two).")
@click.option("--tests", is_flag=True, help="Ask for what the project's tests need as well.")
@json_option
@click.pass_context
def command(context: click.Context, deep: bool, tests: bool, as_json: bool) -> None:
    """Say what is found here, and how to mend what is not."""
    with only_results_on_stdout() as show:
        from labkit import doctor

        findings = doctor.examine(deep, tests)
        show(doctor.as_json(findings) if as_json else doctor.as_text(findings))
    context.exit(0 if doctor.healthy(findings) else 1)
