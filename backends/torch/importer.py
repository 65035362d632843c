"""Networks from PyTorch: `torch.export`ed programs -> IR."""

from __future__ import annotations

import warnings

from torch.export import ExportedProgram

from gensynth.ir import Network, UsageError

from .importer_ops import translators
from .translation import Translation

__all__ = ["from_torch"]


def from_torch(program: ExportedProgram, *, name: str = "imported") -> Network:
    """Returns the network that an exported program computes, with the program's weights.

    A fixed batch becomes `N`. Nodes are called after the modules they come from (`layer1.0.conv1`; a name that starts
    with a digit gets `layer` in front). A weight that several modules share is copied to each of them.

    Raises:
        UsageError: no exported program, or something in it that the IR cannot express: says which node, which aten op,
            where in the user's code, and what to do.
    """
    if not isinstance(program, ExportedProgram):
        raise UsageError(
            f"from_torch wants an exported program, got {type(program).__name__}",
            hint="torch.export.export(module.eval(), (example_input,))",
        )
    targets = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    if any(target.startswith("aten.") and target.split(".")[1].endswith("_") for target in targets):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            program = program.run_decompositions({})  # nothing is decomposed: this takes in-place operations away
    return Translation(program, name).network(translators())
