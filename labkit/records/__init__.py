"""Plain records of what the lab computed. Nothing here knows a tensor or a model."""

from labkit.records.base import Provenance, Record, RecordError, write_whole
from labkit.records.losslog import LossLog, LossPoint, ValidationPoint
from labkit.records.risktable import CoveragePoint, RiskTable, Sample, Weighting
from labkit.records.servinglog import ServingLog, ServingRow, Spread, gains
from labkit.records.studies import (
    AblationRow,
    AblationStudy,
    HeldOutScore,
    StorageRow,
    StorageStudy,
    TreeStudy,
    VerifyCost,
)
from labkit.records.trace import ROOT, Candidate, Node, Outlook, Step, Token, Trace

__all__ = [
    "ROOT",
    "AblationRow",
    "AblationStudy",
    "Candidate",
    "CoveragePoint",
    "HeldOutScore",
    "LossLog",
    "LossPoint",
    "Node",
    "Outlook",
    "Provenance",
    "Record",
    "RecordError",
    "RiskTable",
    "Sample",
    "ServingLog",
    "ServingRow",
    "Spread",
    "Step",
    "StorageRow",
    "StorageStudy",
    "Token",
    "Trace",
    "TreeStudy",
    "ValidationPoint",
    "VerifyCost",
    "Weighting",
    "gains",
    "write_whole",
]
