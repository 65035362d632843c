"""Passes: the manager, rewrite rules, choices, analyses and costs. Imports nothing above the IR."""

from . import rewrites as _rewrites  # noqa: F401  (registers the built-in rules)
from .base import Option, OptionValue, Pass, PassResult, all_passes, option, pass_class
from .canonicalize import Canonicalize, canonicalize
from .choices.commit import Commit
from .choices.drop import Drop
from .choices.inlining import Inliner
from .choices.materialize import Decided, Materialize, Materializer
from .choices.offer import Offer
from .choices.open_depth import OpenDepth
from .choices.open_kernel import OpenKernel
from .choices.open_width import OpenWidth
from .choices.sort_channels import SortChannels
from .choices.update import Update
from .fold_zeros import FoldZeros, fold_zeros, gives_zeros
from .manager import DumpIR, Instrument, Ledger, LedgerRow, PassManager, PrintIR, run_pipeline
from .pipeline import parse_pipeline, pipeline_text
from .requirements import COMPUTABLE, METRICS, ON_DEVICE, Requirement, parse_requirement, parse_requirements
from .rules import Carry, Match, Rewriter, RewriteRule, Rule, Verdict
from .strip_dropout import StripDropout

__all__ = [
    "COMPUTABLE",
    "METRICS",
    "ON_DEVICE",
    "Canonicalize",
    "Carry",
    "Commit",
    "Decided",
    "Drop",
    "DumpIR",
    "FoldZeros",
    "Inliner",
    "Instrument",
    "Ledger",
    "LedgerRow",
    "Match",
    "Materialize",
    "Materializer",
    "Offer",
    "OpenDepth",
    "OpenKernel",
    "OpenWidth",
    "Option",
    "OptionValue",
    "Pass",
    "PassManager",
    "PassResult",
    "PrintIR",
    "Requirement",
    "RewriteRule",
    "Rewriter",
    "Rule",
    "SortChannels",
    "StripDropout",
    "Update",
    "Verdict",
    "all_passes",
    "canonicalize",
    "fold_zeros",
    "gives_zeros",
    "option",
    "parse_pipeline",
    "parse_requirement",
    "parse_requirements",
    "pass_class",
    "pipeline_text",
    "run_pipeline",
]
