"""``labkit doctor``: check the installation and the machine, and say how to mend faults."""

import click

from labkit.cli._output import json_option, only_results_on_stdout


@click.command()
@click.option("--deep", is_flag=True, help="Also hash every model file (a second or two).")
@click.option("--tests", is_flag=True, help="Also check what the project's tests need.")
@json_option
@click.pass_context
def command(context: click.Context, deep: bool, tests: bool, as_json: bool) -> None:
    """Check the installation and the machine, and say how to mend faults."""
    with only_results_on_stdout() as show:
        from labkit import doctor

        findings = doctor.examine(deep, tests)
        show(doctor.as_json(findings) if as_json else doctor.as_text(findings))
    context.exit(0 if doctor.healthy(findings) else 1)
