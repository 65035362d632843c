"""The parser of the text form: recursive descent over tokens cut by one regular expression.

Token offsets are computed only when a message needs them, so well-formed text is read fast.
"""

from __future__ import annotations

import math
from typing import NoReturn

from .attributes import AttributeValue
from .errors import GenSynthError, InferenceError, ParseError, Source, UsageError, VerifyError, nearest
from .graph import Alternative, Choice, Graph, Node, Value
from .infer import choose_node, make_node
from .op import Op, op_class
from .printer import FORMAT_VERSION
from .scanning import END, INTEGER, MOST_DIGITS, NUMBER, TYPE, WORD, scan, token_at
from .types import BATCH, DTYPE_BYTES, Dim, TensorType
from .verifier import NAME, verify

__all__ = ["parse"]

_DEEPEST = 64
_HEADER_FORM = "a network reads: network @name(%image: f32[N, 3, 32, 32]) -> f32[N, 10] { ... return %logits }"
_NODE_FORM = "a node reads: %y = conv2d(%x) {channels=16, kernel=3, padding=same}"
_CHOOSE_FORM = "an alternative reads: original[0.00](%x) { %y = relu(%x) yield %y }"

_ops: dict[tuple[str, ...], Op] = {}
"""Ops read so far, by the tokens they were read from."""
_input_types: dict[str, TensorType] = {}


def parse(text: str, name: str = "<text>") -> Graph:
    """Returns the graph that a text describes, verified. `name` is the file name for messages.

    Raises:
        ParseError: with file, line, column, the line with a caret, what was expected, and a remedy.
    """
    return _Parser(Source(text, name)).file()


def _about(op_name: str) -> str:
    return f"`gensynth ops {op_name}` tells what it takes"


class _Parser:
    def __init__(self, source: Source) -> None:
        self.source = source
        self.tokens = scan(source.text)
        self.index = 0
        self.logits: dict[str, tuple[float, ...]] = {}
        self.counts: dict[str, int] = {}
        """How many alternatives each choice has."""
        self.values: dict[str, tuple[AttributeValue, ...]] = {}
        """What a bare `choice<id>` stands for."""
        self.depth = 0
        self.form = _HEADER_FORM
        """How what is being read is written, for messages."""
        self.starts = [
            (line.lstrip().split(" ", 1)[0].rstrip(",")[1:], number)
            for number, line in enumerate(source.text.split("\n"), 1)
            if line.lstrip()[:1] == "%"
        ]
        """(name, line) wherever a line starts with a value, for the nodes' origins."""
        self.started = 0

    # Errors and elementary steps.

    def fail(self, message: str, index: int | None = None, hint: str | None = None) -> NoReturn:
        offset, length = token_at(self.source.text, self.index if index is None else index)
        raise ParseError(message, source=self.source, offset=offset, length=length, hint=hint) from None

    def unexpected(self, expected: str, hint: str | None = None) -> NoReturn:
        token = self.tokens[self.index]
        found = f"'{token}'" if token else "the end of the text"
        cut = "" if token else "the text may be cut short; "
        self.fail(f"expected {expected}, found {found}", hint=hint or cut + self.form)

    def expect(self, token: str, after: str = "") -> None:
        if self.tokens[self.index] != token:
            self.unexpected(f"'{token}'{' ' + after if after else ''}")
        self.index += 1

    def name(self, sigil: str, what: str) -> str:
        token = self.tokens[self.index]
        if token[:1] != sigil or not NAME.match(token[1:]):
            self.unexpected(f"{what} such as '{sigil}x'" if sigil else what)
        self.index += 1
        return token[1:]

    def word(self, what: str) -> str:
        token = self.tokens[self.index]
        if not NAME.match(token):
            self.unexpected(what)
        self.index += 1
        return token

    def identifier(self) -> str:
        """Reads `<id>`."""
        self.expect("<")
        identifier = self.word("a choice id")
        self.expect(">")
        return identifier

    # The file.

    def file(self) -> Graph:
        if self.tokens[0] != "gensynth":
            self.unexpected("'gensynth 1' on the first line", hint="a .gsir file starts with its format version")
        self.index = 1
        version = self.tokens[1]
        if not INTEGER.match(version):
            self.unexpected("a format version", hint=f"the first line reads: gensynth {FORMAT_VERSION}")
        if version != str(FORMAT_VERSION):
            self.fail(
                f"this text is of format version {version}; this GenSynth reads version {FORMAT_VERSION}",
                hint="update GenSynth, or write the text again with the version at hand",
            )
        self.index = 2
        graph = self.network()
        if self.tokens[self.index] != END:
            self.unexpected("the end of the text", hint="a file holds one network")
        return graph

    def network(self) -> Graph:
        start = self.index
        self.expect("network")
        name = self.name("@", "a network name")
        self.expect("(")
        inputs: list[Value] = []
        scope: dict[str, Value] = {}
        while self.tokens[self.index] != ")":
            if inputs:
                self.expect(",", "or ')'")
            at = self.index
            value_name = self.name("%", "an input")
            self.expect(":", "and the input's type")
            value = Value(value_name, self.input_type())
            if value_name in scope:
                self.fail(f"%{value_name} is defined twice", at, hint="give every input a name of its own")
            scope[value_name] = value
            inputs.append(value)
        self.index += 1
        self.expect("->", "and the output types")
        declared_at = self.index
        declared = self.result_types()
        self.expect("{")
        requirements: list[str] = []
        while self.tokens[self.index] == "require":
            self.index += 1
            token = self.tokens[self.index]
            if not token.startswith('"') or len(token) < 2:
                self.unexpected('a quoted requirement such as "macs <= 5M"', hint='write require "macs <= 5M"')
            requirements.append(token[1:-1])
            self.index += 1
        nodes, outputs = self.body(scope, "return")
        if declared != [value.type.text.replace(" ", "") for value in outputs]:
            self.fail(
                f"@{name} is declared to give {', '.join(declared)}, it returns"
                f" {', '.join(value.type.text for value in outputs)}",
                declared_at,
                hint="correct the declared types after '->', or the returned values",
            )
        for identifier, logits in self.logits.items():
            if len(logits) != self.counts[identifier]:
                self.fail(
                    f"choice '{identifier}' has {self.counts[identifier]} alternatives, {len(logits)} logits",
                    start,
                    hint="write one logit for every alternative",
                )
        theta = {identifier: self.logits.get(identifier, (0.0,) * count) for identifier, count in self.counts.items()}
        try:
            graph = Graph(name, tuple(inputs), tuple(nodes), tuple(outputs), theta, tuple(requirements))
            verify(graph)
        except GenSynthError as error:
            self.fail(error.message, start, hint=error.hint or self.form)
        return graph

    def input_type(self) -> TensorType:
        token = self.tokens[self.index]
        found = _input_types.get(token)
        if found is None:
            match = TYPE.match(token)
            if match is None:
                self.unexpected("a type such as f32[N, 3, 32, 32]", hint=f"element types: {', '.join(DTYPE_BYTES)}")
            shape: list[Dim] = []
            for part in match[2].split(","):
                dim = part.strip()
                if dim == BATCH and not shape:
                    shape.append(BATCH)
                elif INTEGER.match(dim) and len(dim) <= MOST_DIGITS and int(dim) > 0:
                    shape.append(int(dim))
                else:
                    self.fail(
                        f"'{dim}' is no dimension of an input type",
                        hint="write N for the batch, then positive integers",
                    )
            found = _input_types[token] = TensorType(match[1], tuple(shape))
        self.index += 1
        return found

    def result_types(self) -> list[str]:
        """Reads one type, or several in parentheses; returns their text without spaces."""
        several = self.tokens[self.index] == "("
        types: list[str] = []
        if several:
            self.index += 1
        while True:
            token = self.tokens[self.index]
            if not TYPE.match(token):
                self.unexpected("a type such as f32[N, 10]", hint=f"element types: {', '.join(DTYPE_BYTES)}")
            types.append(token.replace(" ", ""))
            self.index += 1
            if not several or self.tokens[self.index] == ")":
                break
            self.expect(",", "or ')'")
        if several:
            self.index += 1
        return types

    # Bodies and nodes.

    def body(self, scope: dict[str, Value], end: str) -> tuple[list[Node], list[Value]]:
        """Reads nodes up to `return` or `yield`, the values after it, and the closing brace."""
        nodes: list[Node] = []
        tokens = self.tokens
        self.form = _NODE_FORM
        while True:
            token = tokens[self.index]
            if token[:1] == "%":
                nodes.append(self.node(scope))
            elif token == end:
                self.index += 1
                outputs = [self.use(scope)]
                while tokens[self.index] == ",":
                    self.index += 1
                    outputs.append(self.use(scope))
                self.expect("}", f"after {end}")
                return nodes, outputs
            else:
                self.unexpected(
                    f"a node such as '%y = relu(%x)', or '{end}'",
                    hint=f"the body ends with '{end} %y' before its brace",
                )

    def use(self, scope: dict[str, Value]) -> Value:
        token = self.tokens[self.index]
        value = scope.get(token[1:]) if token[:1] == "%" else None
        if value is None:
            if token[:1] != "%":
                self.unexpected("a value such as '%x'")
            self.fail(
                f"%{token[1:]} is not defined before its use here",
                hint=nearest(token[1:], scope, what="values in reach"),
            )
        self.index += 1
        return value

    def node(self, scope: dict[str, Value]) -> Node:
        tokens = self.tokens
        start = self.index
        names = [self.name("%", "a value")]
        while tokens[self.index] == ",":
            self.index += 1
            names.append(self.name("%", "a value"))
        self.expect("=")
        origin = self.origin(names[0])
        op_at = self.index
        op_name = tokens[op_at]
        if not WORD.match(op_name):
            self.unexpected("an op such as conv2d")
        self.index += 1
        choice = ""
        if op_name == "choose":
            choice = self.identifier()
        self.expect("(", "and the operands")
        operands: list[Value] = []
        if tokens[self.index] != ")":
            operands.append(self.use(scope))
            while tokens[self.index] == ",":
                self.index += 1
                operands.append(self.use(scope))
        self.expect(")", "or ','")
        if choice:
            node = self.choose(choice, tuple(operands), tuple(names), op_at, origin)
        else:
            node = self.plain(op_name, op_at, tuple(operands), tuple(names), origin)
        if tokens[self.index] == ":":
            self.index += 1
            for position, value in enumerate(node.results):
                if position:
                    self.expect(",", "and the type of the next result")
                token = tokens[self.index]
                if token != value.type.text and token.replace(" ", "") != value.type.text.replace(" ", ""):
                    if not TYPE.match(token):
                        self.unexpected(f"the type {value.type.text}")
                    self.fail(
                        f"%{value.name} is declared {token}, {op_name} gives {value.type.text}",
                        hint="correct the type, or leave it out: it is inferred",
                    )
                self.index += 1
        for value in node.results:
            if value.name in scope:
                self.fail(f"%{value.name} is defined twice", start, hint="every value has one definition")
            scope[value.name] = value
        return node

    def plain(self, op_name: str, op_at: int, operands: tuple[Value, ...], names: tuple[str, ...], origin: str) -> Node:
        tokens = self.tokens
        start = end = self.index
        if tokens[start] == "{" and "}" in tokens[start : start + 64]:
            end = tokens.index("}", start) + 1
        key = (op_name, *tokens[start:end])
        op = _ops.get(key)
        choices: tuple[tuple[str, Choice], ...] = ()
        if op is not None:
            self.index = end
        else:
            op, choices = self.op(op_name, op_at)
            if not choices:
                _ops[key] = op
        try:
            return make_node(op, operands, names, choices=choices, origin=origin)
        except InferenceError as error:
            places = (at for at in range(start, end) if tokens[at] == error.attribute and tokens[at + 1] == "=")
            self.fail(error.message, next(places, op_at), hint=error.hint or _about(op_name))
        except VerifyError as error:
            self.fail(error.message, op_at, hint=error.hint or _about(op_name))

    def op(self, op_name: str, op_at: int) -> tuple[Op, tuple[tuple[str, Choice], ...]]:
        """Reads the attributes, if there are any; returns the op and those left open."""
        attributes: dict[str, AttributeValue] = {}
        choices: list[tuple[str, Choice]] = []
        places: dict[str, int] = {}
        tokens = self.tokens
        if tokens[self.index] == "{":
            self.index += 1
            while tokens[self.index] != "}":
                if places:
                    self.expect(",", "or '}'")
                key = tokens[self.index]
                if not WORD.match(key):
                    self.unexpected("an attribute such as kernel=3")
                if key in places:
                    self.fail(f"attribute '{key}' is given twice", hint="keep one of them")
                places[key] = self.index
                self.index += 1
                self.expect("=", f"and a value for '{key}'")
                if tokens[self.index] == "choice" and tokens[self.index + 1] == "<":
                    choice = self.choice()
                    choices.append((key, choice))
                    attributes[key] = choice.values[0]
                else:
                    attributes[key] = self.value()
            self.index += 1
        return self.make_op(op_name, op_at, attributes, places), tuple(choices)

    def origin(self, name: str) -> str:
        """Returns the file and line of the node that starts here (the file alone where it does not start a line)."""
        if self.started < len(self.starts) and self.starts[self.started][0] == name:
            self.started += 1
            return f"{self.source.name}:{self.starts[self.started - 1][1]}"
        return self.source.name

    def make_op(self, op_name: str, op_at: int, attributes: dict[str, AttributeValue], places: dict[str, int]) -> Op:
        try:
            cls = op_class(op_name)
        except UsageError as error:
            self.fail(error.message, op_at, hint=error.hint)
        for key, at in places.items():
            if key not in cls.attributes:
                self.fail(
                    f"{op_name} has no attribute '{key}'", at, hint=nearest(key, cls.attributes, what="its attributes")
                )
        missing = [spec.name for spec in cls.attributes.values() if spec.required and spec.name not in attributes]
        if missing:
            self.fail(
                f"{op_name} needs {' and '.join(missing)}",
                op_at,
                hint=f"write {{{', '.join(f'{name}=...' for name in missing)}}} after the operands;"
                f" {missing[0]} is {cls.attributes[missing[0]].kind.expected}",
            )
        try:
            op = cls(**attributes)
        except InferenceError as error:
            at = places.get(error.attribute or "", op_at - 2) + 2
            self.fail(error.message, at, hint=error.hint or _about(op_name))
        return op

    def value(self) -> AttributeValue:
        token = self.tokens[self.index]
        if INTEGER.match(token):
            return self.integer()
        if token == "true" or token == "false":
            self.index += 1
            return token == "true"
        if NUMBER.match(token):
            self.index += 1
            return float(token)
        if token == "[":
            self.index += 1
            items: list[int] = []
            while self.tokens[self.index] != "]":
                if items:
                    self.expect(",", "or ']'")
                items.append(self.integer())
            self.index += 1
            return tuple(items)
        if WORD.match(token):
            self.index += 1
            return token
        self.unexpected("a value: a number, true, false, a word, or a list of integers")

    def integer(self) -> int:
        token = self.tokens[self.index]
        if not INTEGER.match(token):
            self.unexpected("an integer")
        if len(token) > MOST_DIGITS:
            self.fail("this number is too large", hint=f"integers have at most {MOST_DIGITS} digits")
        self.index += 1
        return int(token)

    def choice(self) -> Choice:
        """Reads `choice<id>`, `choice<id>[16, 24]` or `choice<id>[8: -0.20, 12: 0.10]`."""
        at = self.index
        self.index += 1
        identifier = self.identifier()
        if self.tokens[self.index] != "[":
            known = self.values.get(identifier)
            if known is None:
                self.fail(
                    f"choice '{identifier}' has no values yet",
                    at + 2,
                    hint=f"list them at its first use: choice<{identifier}>[8: 0.00, 16: 0.00]",
                )
            return Choice(identifier, known)
        self.index += 1
        values: list[AttributeValue] = []
        logits: list[float] = []
        while self.tokens[self.index] != "]" or not values:
            if values:
                self.expect(",", "or ']'")
            values.append(self.value())
            if self.tokens[self.index] == ":":
                self.index += 1
                logits.append(self.number("a logit"))
        self.index += 1
        if logits and len(logits) != len(values):
            self.fail(
                f"choice '{identifier}' has {len(values)} values, {len(logits)} logits",
                at,
                hint="give every value a logit, or none",
            )
        self.declare(identifier, len(values), tuple(logits), at)
        self.values.setdefault(identifier, tuple(values))
        return Choice(identifier, tuple(values))

    def number(self, what: str) -> float:
        token = self.tokens[self.index]
        if not NUMBER.match(token):
            self.unexpected(what)
        number = float(token)
        if not math.isfinite(number):
            self.unexpected("a finite number", hint="logits lie between -1e308 and 1e308")
        self.index += 1
        return number

    def declare(self, identifier: str, count: int, logits: tuple[float, ...], at: int) -> None:
        """Notes a choice's number of alternatives and logits, which must agree wherever they are written."""
        if self.counts.setdefault(identifier, count) != count:
            self.fail(
                f"choice '{identifier}' has {self.counts[identifier]} alternatives elsewhere, {count} here",
                at,
                hint="uses of one choice are decided together and list equally many alternatives",
            )
        if logits and self.logits.setdefault(identifier, logits) != logits:
            self.fail(f"choice '{identifier}' has other logits elsewhere", at, hint="write them once, at its first use")

    def choose(
        self, identifier: str, operands: tuple[Value, ...], names: tuple[str, ...], op_at: int, origin: str
    ) -> Node:
        self.depth += 1
        if self.depth > _DEEPEST:
            self.fail(f"choices nest deeper than {_DEEPEST}", op_at, hint="commit the outer ones")
        self.expect("{", "and the alternatives")
        alternatives: list[Alternative] = []
        labels: set[str] = set()
        logits: list[float] = []
        while self.tokens[self.index] != "}":
            self.form = _CHOOSE_FORM
            at = self.index
            label = self.word("an alternative such as original[0.00](%x) { ... }")
            if label in labels:
                self.fail(f"choose<{identifier}> has two alternatives '{label}'", at, hint="give them different labels")
            if self.tokens[self.index] == "[":
                self.index += 1
                logits.append(self.number("a logit"))
                self.expect("]")
            self.expect("(")
            scope: dict[str, Value] = {}
            arguments: list[Value] = []
            for position, operand in enumerate(operands):
                if position:
                    self.expect(",", f"and the next of {len(operands)} arguments")
                argument = Value(self.name("%", "an argument"), operand.type)
                if argument.name in scope:
                    self.fail(
                        f"%{argument.name} is defined twice",
                        self.index - 1,
                        hint="give every argument a name of its own",
                    )
                scope[argument.name] = argument
                arguments.append(argument)
            self.expect(")", f"after {len(operands)} argument{'s' if len(operands) != 1 else ''}")
            self.expect("{")
            nodes, outputs = self.body(scope, "yield")
            body = Graph(label, tuple(arguments), tuple(nodes), tuple(outputs))
            alternatives.append(Alternative(label, body))
            labels.add(label)
        self.index += 1
        if logits and len(logits) != len(alternatives):
            self.fail(
                f"choose<{identifier}> has {len(alternatives)} alternatives, {len(logits)} logits",
                op_at,
                hint="give every alternative a logit, or none",
            )
        self.depth -= 1
        self.form = _NODE_FORM
        try:
            node = choose_node(identifier, operands, names, tuple(alternatives), origin=origin)
        except VerifyError as error:
            self.fail(error.message, op_at, hint=error.hint or _CHOOSE_FORM)
        self.declare(identifier, len(alternatives), tuple(logits), op_at)
        return node
