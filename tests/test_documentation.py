"""README and docs: every block runs, every link leads somewhere, and everything there is is told of."""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import TypeVar

import pytest
from documents import Block, blocks, typed

from gensynth.cli import COMMANDS

ClassT = TypeVar("ClassT")

ROOT = Path(__file__).parent.parent
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
PLUGINS = ROOT / "examples" / "plugins"
FOLDERS = ("api", "backends", "bench", "docs", "examples", "ir", "passes", "synth", "tests")


@pytest.fixture
def place(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """A folder like a checkout, and an environment in which `gensynth` is a command."""
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "gensynth"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m gensynth "$@"\n', encoding="utf-8")
    command.chmod(0o755)
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "examples").symlink_to(ROOT / "examples")
    path = f"{command.parent}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return folder, {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"}


def run(folder: Path, environment: dict[str, str], *command: str) -> str:
    ran = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, f"{shlex.join(command)}\n{ran.stdout}{ran.stderr}"
    return ran.stdout


def all_blocks(*languages: str) -> Iterator[Block]:
    for page in PAGES:
        yield from (block for block in blocks(page) if block.language in languages)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_block_of_a_page_runs_and_prints_what_is_shown(page: Path, place: tuple[Path, dict[str, str]]) -> None:
    run(*place, sys.executable, str(ROOT / "tests" / "documents.py"), str(page))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.stem)
def test_every_example_runs(example: Path, place: tuple[Path, dict[str, str]]) -> None:
    assert run(*place, sys.executable, str(example)).strip(), "an example prints something"


def test_commands_that_are_not_run_are_commands_nevertheless() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z0-9-]+):", makefile, re.MULTILINE))
    variables = set(re.findall(r"^([A-Z_]+) \?=", makefile, re.MULTILINE))
    for block in all_blocks("sh", "console"):
        if "norun" not in block.words:
            continue
        for command in typed(block):
            for part in re.split(r"\||&&", command.command):
                name, *arguments = shlex.split(part, comments=True)
                if name == "gensynth":
                    assert COMMANDS[arguments[0]].parse(arguments[1:]) is not None, f"{block.path}:{command.line}"
                elif name == "make":
                    settings = {argument for argument in arguments if argument.partition("=")[0] in variables}
                    assert set(arguments) - settings <= targets, f"{block.path}:{command.line}: no such target"


def test_every_example_of_a_command_parses() -> None:
    for command in COMMANDS.values():
        assert command.examples
        for example in command.examples:
            for part in example.split("|"):
                _, name, *arguments = shlex.split(part)
                assert COMMANDS[name].parse(arguments) is not None, example


def test_every_network_shown_is_one() -> None:
    from gensynth.ir import parse, to_text

    shown = list(all_blocks("gsir"))
    assert shown
    for block in shown:
        graph = parse(block.text, block.place)
        if "loose" not in block.words:
            assert to_text(graph) == block.text, f"{block.place} is not as GenSynth prints it"


def test_every_configuration_shown_is_one() -> None:
    from gensynth.synth.config import parse_config

    needed = {
        "task": '[task]\nname = "digits"\n',
        "prototype": '[prototype]\nname = "resnet"\ndepth = 8\n',
        "generator": '[generator]\npasses = ["open-width"]\n',
    }
    for block in all_blocks("toml"):
        if any(word == "norun" or word.startswith("file=") for word in block.words):
            continue
        given = tomllib.loads(block.text)
        rest = "\n".join(text for table, text in needed.items() if table not in given)
        parse_config(f"{block.text}\n{rest}", block.place)
    for path in (ROOT / "examples").glob("*.toml"):
        parse_config(path.read_text(encoding="utf-8"), str(path))


def anchors(page: Path) -> set[str]:
    """The anchors that a page's headings get on GitHub."""
    content = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ +(.+)$", content, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_and_paths_lead_somewhere(page: Path) -> None:
    content = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", content):
        if target.startswith(("http://", "https://")):
            continue
        file, _, anchor = target.partition("#")
        found = page if not file else (page.parent / file).resolve()
        assert found.exists(), f"{page.name}: {target} leads nowhere"
        assert not anchor or anchor in anchors(found), f"{page.name}: {target} has no such heading"
    for path in re.findall(rf"`((?:{'|'.join(FOLDERS)})/[\w./-]*)`", content):
        assert (ROOT / path).exists(), f"{page.name}: there is no {path}"


def text_of(*names: str) -> str:
    return "\n".join((ROOT / name).read_text(encoding="utf-8") for name in names)


def own(classes: Iterable[type[ClassT]]) -> list[type[ClassT]]:
    """Leaves out what other test modules have registered."""
    return [cls for cls in classes if cls.__module__.startswith("gensynth.")]


def assert_told(names: Iterator[str] | list[str], text: str, where: str) -> None:
    missing = [name for name in names if not re.search(rf"`{re.escape(name)}(?:\{{[^`]*)?`", text)]
    assert not missing, f"{where} does not tell of {', '.join(missing)}"


def test_every_pass_rule_and_op_is_told_of() -> None:
    from gensynth.ir import all_ops
    from gensynth.passes import all_passes

    assert_told([item.name for item in own(all_passes())], text_of("docs/passes.md"), "docs/passes.md")
    assert_told([item.name for item in own(all_ops())], text_of("docs/ops.md"), "docs/ops.md")


def test_every_option_of_every_pass_and_attribute_of_every_op_is_told_of() -> None:
    from gensynth.ir import all_ops
    from gensynth.passes import all_passes

    passes = {name for item in own(all_passes()) for name in item.options()}
    assert_told(sorted(passes), text_of("docs/passes.md"), "docs/passes.md")
    attributes = {name for item in own(all_ops()) for name in item.attributes if item.name != "choose"}
    assert_told(sorted(attributes), text_of("docs/ops.md"), "docs/ops.md")


def test_every_command_and_option_is_told_of() -> None:
    text = text_of("docs/cli.md")
    for command in COMMANDS.values():
        section = re.search(rf"^## {re.escape(command.name)}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
        assert section is not None, f"docs/cli.md has no section '{command.name}'"
        assert f"gensynth {command.name}" in section[1], f"docs/cli.md shows no `gensynth {command.name}`"
        for option in (option for action in command.parser()._actions for option in action.option_strings):
            if option.startswith("--") and option not in ("--help", "--json", "--output"):
                assert option in section[1], f"docs/cli.md, {command.name}: {option} is not told of"


def test_every_task_prototype_and_requirement_is_told_of() -> None:
    from gensynth.passes import METRICS
    from gensynth.synth.performance import PERFORMANCE
    from gensynth.synth.prototypes import prototypes
    from gensynth.synth.tasks import tasks

    text = text_of("docs/configuration.md")
    assert_told([item.name for item in own(tasks())], text, "docs/configuration.md")
    assert_told([name for item in own(tasks()) for name in item.declared_options()], text, "docs/configuration.md")
    assert_told([item.name for item in prototypes()], text, "docs/configuration.md")
    assert_told([name for item in prototypes() for name in item.arguments], text, "docs/configuration.md")
    assert_told([*METRICS, *PERFORMANCE], text, "docs/configuration.md")
    assert_told([unit for units in METRICS.values() for unit in units if unit], text, "docs/configuration.md")


def test_every_key_of_a_configuration_is_told_of_with_its_default() -> None:
    from gensynth.backends.torch.recipe import Augmentation, Recipe
    from gensynth.synth.config import EmitSettings, SearchSettings
    from gensynth.synth.inquisitor import InquisitorSettings

    text = text_of("docs/configuration.md")
    for table, settings in (
        ("search", SearchSettings),
        ("inquisitor", InquisitorSettings),
        ("emit", EmitSettings),
        ("training", Recipe),
    ):
        section = re.search(rf"^## \[{table}\].*?\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
        assert section is not None, f"docs/configuration.md has no section '[{table}]'"
        rows = dict(re.findall(r"^\| `(\w+)` \| `([^`]*)` \|", section[1], re.MULTILINE))
        for field in dataclasses.fields(settings):
            if field.name == "surrogate":
                continue
            assert field.name in rows, f"docs/configuration.md does not tell of [{table}] {field.name}"
            told = tomllib.loads(f"value = {rows[field.name]}")["value"]
            told = tuple(told) if isinstance(told, list) else told
            assert told == field.default, f"[{table}] {field.name}: the default is {field.default}, not {told}"
    for name, defaults in Augmentation.DEFAULTS.items():
        assert_told([name], text, "docs/configuration.md")
        for key, value in defaults.items():
            shown = f'{key} = "{value}"' if isinstance(value, str) else f"{key} = {value}"
            assert shown in text, f"docs/configuration.md does not tell of {name}: {shown}"


def test_every_key_of_a_device_file_is_told_of() -> None:
    from gensynth.passes.cost import LOWERINGS, Lowering, device, workload

    text = text_of("docs/costs.md")
    tables = (device.Precision, device.PowerMode, device.Runtime, Lowering, device.Evidence, device.Range)
    fields = {item.name for item in dataclasses.fields(device.Device)} - {"networks_seen"}
    fields |= {"networks", *(item.name for table in tables for item in dataclasses.fields(table))}
    assert_told(sorted(fields), text, "docs/costs.md")
    assert_told([*device.COEFFICIENTS, *LOWERINGS, *workload.KINDS, *workload.ZEROS], text, "docs/costs.md")


@pytest.fixture
def with_plugins(place: tuple[Path, dict[str, str]]) -> tuple[Path, dict[str, str]]:
    """The example plug-ins as pip would install them: a folder on the path with metadata beside the package."""
    folder, environment = place
    project = tomllib.loads((PLUGINS / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    site = folder.parent / "site"
    information = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    information.mkdir(parents=True)
    (site / "gensynth_extras").symlink_to(PLUGINS / "gensynth_extras")
    about = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    (information / "METADATA").write_text(about, encoding="utf-8")
    groups = [
        "\n".join([f"[{group}]", *(f"{name} = {value}" for name, value in entries.items())])
        for group, entries in project["entry-points"].items()
    ]
    (information / "entry_points.txt").write_text("\n\n".join(groups), encoding="utf-8")
    found = {entry.group for entry in metadata.PathDistribution(information).entry_points}
    assert found == set(project["entry-points"])
    path = os.pathsep.join(filter(None, (str(site), environment.get("PYTHONPATH", ""))))
    return folder, {**environment, "PYTHONPATH": path}


def test_the_example_plug_ins_work_by_their_entry_points(with_plugins: tuple[Path, dict[str, str]]) -> None:
    assert run(*with_plugins, sys.executable, str(PLUGINS / "check.py")) == "all plug-ins work\n"


def test_the_example_plug_ins_are_listed_by_the_command_line(with_plugins: tuple[Path, dict[str, str]]) -> None:
    for listing, name in (
        ("ops", "hard_tanh"),
        ("passes", "drop-dropout"),
        ("passes", "relu-to-hard-tanh"),
        ("prototypes", "plain"),
        ("tasks", "stripes"),
        ("targets", "jetson-nano-gpu"),
        ("devices", "jetson-nano-gpu"),
    ):
        assert re.search(rf"^{name} ", run(*with_plugins, "gensynth", listing), re.MULTILINE), f"{listing}: {name}"
    piped = "gensynth prototype plain depth=1 | gensynth opt - --passes relu-to-hard-tanh"
    assert re.search(r"%act += hard_tanh\(%conv\)", run(*with_plugins, "sh", "-c", piped))


def test_every_entry_point_group_has_an_example_and_is_told_of() -> None:
    project = tomllib.loads((PLUGINS / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    sources = [path for folder in ("ir", "passes", "synth", "backends") for path in (ROOT / folder).rglob("*.py")]
    code = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    groups = set(
        re.findall(
            r'"(gensynth\.(?:ops|passes|rules|tasks|prototypes|performance|lowerings|onnx_lowerings|relax_lowerings|targets|devices))"',
            code,
        )
    )
    assert groups == set(project["entry-points"])
    assert_told(sorted(groups), text_of("docs/plugins.md"), "docs/plugins.md")
