"""``labkit doctor``: check the installation and the machine, and say how to mend faults."""

import click

from labkit.cli._output import Report, reports


@reports
@click.option("--deep", is_flag=True, help="Also hash every model file (a second or two).")
@click.option("--tests", is_flag=True, help="Also check what the project's tests need.")
def command(deep: bool, tests: bool) -> Report:
    """Check the installation and the machine, and say how to mend faults."""
    from labkit import doctor

    findings = doctor.examine(deep, tests)
    status = 0 if doctor.healthy(findings) else 1
    return Report(doctor.as_json(findings), doctor.as_text(findings), status)
