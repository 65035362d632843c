"""Commands that list what there is: `passes`, `ops`, `prototypes`, `tasks`."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from gensynth.ir import UsageError, nearest

from .command import Command
from .files import print_json
from .output import print_table

if TYPE_CHECKING:
    from gensynth.passes import Option

__all__ = ["COMMANDS"]

Entry = Mapping[str, object]
"""What is told of one item; keys `name` and `description`, then what the kind has."""


def _option(declared: Option) -> Entry:
    default = list(declared.default) if isinstance(declared.default, tuple) else declared.default
    return {
        "name": declared.name,
        "expected": declared.expected,
        "required": declared.required,
        "default": default,
        "help": declared.help,
    }


def _passes() -> list[Entry]:
    from gensynth.passes import Rule, all_passes

    return [
        {
            "name": item.name,
            "description": item.description(),
            "kind": "rewrite rule" if issubclass(item, Rule) else "pass",
            "weights": item.carries.value if issubclass(item, Rule) else None,
            "options": [_option(declared) for declared in item.options().values()],
            "details": inspect.getdoc(item) or "",
        }
        for item in all_passes()
    ]


def _ops() -> list[Entry]:
    from gensynth.ir import all_ops

    entries: list[Entry] = []
    for item in all_ops():
        options = [
            {
                "name": spec.name,
                "expected": spec.kind.expected,
                "required": spec.required,
                "default": list(spec.default) if isinstance(spec.default, tuple) else spec.default,
                "help": "",
            }
            for spec in item.attributes.values()
        ]
        details = inspect.getdoc(item) or ""
        entries.append(
            {
                "name": item.name,
                "description": details.partition("\n")[0],
                "operands": item.arity,
                "options": options,
                "details": details,
            }
        )
    return entries


def _prototypes() -> list[Entry]:
    from gensynth.synth.prototypes import prototypes

    return [
        {
            "name": item.name,
            "description": item.description,
            "options": [
                {
                    "name": spec.name,
                    "expected": spec.expected,
                    "required": False,
                    "default": list(spec.default) if isinstance(spec.default, tuple) else spec.default,
                    "help": "",
                }
                for spec in item.arguments.values()
            ],
            "details": inspect.getdoc(item.function) or "",
        }
        for item in prototypes()
    ]


def _tasks() -> list[Entry]:
    from gensynth.synth.tasks import tasks

    return [
        {
            "name": item.name,
            "description": item.description,
            "metric": item.metric,
            "options": [_option(declared) for declared in item.declared_options().values()],
            "details": inspect.getdoc(item) or "",
        }
        for item in tasks()
    ]


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", metavar="NAME", help="tell all about this one")
    parser.add_argument("--json", action="store_true", help="print JSON: a list of objects, or the one asked for")


def _listing(what: str, entries: Callable[[], list[Entry]], column: str = "") -> Callable[[argparse.Namespace], int]:
    """Returns what runs a listing; `column` names one more key to show beside name and description."""

    def run(arguments: argparse.Namespace) -> int:
        found = entries()
        if arguments.name is None:
            if arguments.json:
                print_json(found)
            else:
                extra = [column] if column else []
                rows = [[str(entry[key] or "-") for key in ("name", *extra, "description")] for entry in found]
                print_table([what, *extra, "description"], rows)
            return 0
        by_name = {str(entry["name"]): entry for entry in found}
        if arguments.name not in by_name:
            raise UsageError(
                f"unknown {what} '{arguments.name}'", hint=nearest(arguments.name, by_name, what="known names")
            )
        if arguments.json:
            print_json(by_name[arguments.name])
        else:
            _tell(by_name[arguments.name])
        return 0

    return run


def _weights(carried: object) -> str | None:
    """Returns what a rule does with weights, in words."""
    if carried is None:
        return None
    return "start fresh" if carried == "fresh" else f"carried {carried}"


def _tell(entry: Entry) -> None:
    print(f"{entry['name']}\n\n{entry['details']}")
    facts = {
        "kind": entry.get("kind"),
        "operands": ("one or more" if entry["operands"] is None else entry["operands"])
        if "operands" in entry
        else None,
        "weights": _weights(entry.get("weights")),
        "metric": entry.get("metric"),
    }
    shown = [f"{key}: {value}" for key, value in facts.items() if value is not None]
    if shown:
        print("\n" + "\n".join(shown))
    options = entry["options"]
    assert isinstance(options, list)
    if options:
        print()
        print_table(["option", "default", "accepts", "help"], [_option_row(option) for option in options])


def _option_row(option: Entry) -> list[str]:
    default = option["default"]
    if option["required"]:
        shown = "(required)"
    elif isinstance(default, list):
        shown = f"[{','.join(map(str, default))}]"
    elif isinstance(default, bool):
        shown = str(default).lower()
    else:
        shown = "-" if default is None else str(default)
    return [str(option["name"]), shown, str(option["expected"]), str(option["help"])]


COMMANDS = (
    Command(
        "passes",
        "list the passes and rewrite rules, or tell all about one",
        ("gensynth passes separate-conv",),
        _arguments,
        _listing("pass", _passes, "kind"),
        "Any rewrite rule can be run as it is, or offered to a generator: offer{rewrite=NAME}.",
    ),
    Command("ops", "list the ops, or tell all about one", ("gensynth ops conv2d",), _arguments, _listing("op", _ops)),
    Command(
        "prototypes",
        "list the networks of the zoo, or tell all about one",
        ("gensynth prototypes resnet",),
        _arguments,
        _listing("prototype", _prototypes),
    ),
    Command(
        "tasks",
        "list the tasks, or tell all about one",
        ("gensynth tasks image-folder",),
        _arguments,
        _listing("task", _tasks),
    ),
)
