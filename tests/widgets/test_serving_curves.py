from __future__ import annotations

import pytest
import traitlets

from labkit.records import ServingLog
from labkit.widgets import ServingCurves
from widgets.made import serving_log, serving_row
from widgets.node import run_tests


def test_pure_functions_under_node():
    run_tests("serving_curves")


def test_read_out_begins_at_the_fewest_users():
    log = serving_log()
    later = log.model_copy(update={"rows": tuple(row for row in log.rows if row.users > 1)})
    assert ServingCurves(log).users == 1
    assert ServingCurves(later).users == 2
    assert ServingCurves(later, users=8).users == 8


def test_another_record_starts_anew():
    curves = ServingCurves(serving_log(), users=8)
    curves.record = serving_log()
    assert curves.users == 1


def test_summary_names_the_gain_at_both_ends():
    said = ServingCurves(serving_log()).summary()
    assert "mlp 2.00× at 1 (measured)" in said
    assert "mlp 1.02× at 64 (simulated)" in said


def test_summary_of_vanilla_alone_claims_no_gain():
    log = serving_log().model_copy(update={"rows": (serving_row(1, "vanilla"),)})
    assert "gained" not in ServingCurves(log).summary()


def test_without_a_manager_a_picture_and_a_table_stand_in():
    data, _ = ServingCurves(serving_log())._repr_mimebundle_()
    assert len(data["image/png"]) > 1000
    assert data["text/html"].count("<tr>") == 1 + len(serving_log().rows)


def test_a_log_without_rows_is_shown_as_one():
    empty = ServingLog(name="n", base="b", target="t", max_new_tokens=1, rows=())
    assert "0 rows" in ServingCurves(empty)._repr_mimebundle_()[0]["text/plain"]


@pytest.mark.parametrize(("trait", "value"), [("gap", "e2e"), ("line", "p42"), ("users", 0)])
def test_what_a_switch_cannot_be_is_refused(trait: str, value: object):
    with pytest.raises(traitlets.TraitError):
        setattr(ServingCurves(serving_log()), trait, value)


def test_a_wrong_record_is_one_sentence():
    assert "'losslog'" in ServingCurves('{"kind": "losslog"}').problem
