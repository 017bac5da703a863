"""Parser of a compiled program's HLO text into instructions with operands and sizes."""

import functools
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.-]+) = (.*)$")
_OPCODE = re.compile(r"\s*([\w-]+)\(")
_ARRAY = re.compile(r"\b([a-z]+)(\d*)\w*\[([\d,]*)\](?:\{([\d,]*))?")
_CALLED = re.compile(
    r"\b(?:body|calls|to_apply|called_computations)=\{?%?([\w.-]+)|branch_computations=\{([^}]*)\}"
)
_TRIP_COUNT = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
# Instructions that execute the instructions of the computations that they call.
_CONTROL = frozenset({"while", "call", "conditional", "async-start"})


@dataclass(frozen=True)
class Instruction:
    """One instruction.

    Attributes:
      name: name, unique in its computation.
      opcode: opcode, such as "fusion".
      shape: text of the result's type, with layouts, in parentheses for a tuple.
      operands: names of the operands.
      attributes: text after the operands.
      root: True for the result of its computation.
    """

    name: str
    opcode: str
    shape: str
    operands: tuple[str, ...]
    attributes: str
    root: bool

    @property
    def size(self) -> int:
        """Size of the result in bytes."""
        return sum(_bytes(*found) for found in _ARRAY.findall(self.shape))

    @property
    def dims(self) -> tuple[int, ...]:
        """Dimensions of the result's first array."""
        found = _ARRAY.search(self.shape)
        return tuple(int(n) for n in (found[3] if found else "").split(",") if n)

    @property
    def dtype(self) -> str:
        """Element type of the result's first array, such as "bf16"."""
        kind, bits, _, _ = _ARRAY.search(self.shape).groups()  # type: ignore[union-attr]
        return kind + bits

    @property
    def layout(self) -> str:
        """Memory order of the dimensions of the result's first array, minor to major."""
        found = _ARRAY.search(self.shape)
        return (found[4] if found else None) or ""

    @property
    def scope(self) -> str:
        """Name scope of the JAX operation that the instruction comes from."""
        return self.attribute("op_name")

    @property
    def called(self) -> tuple[str, ...]:
        """Names of the computations that the instruction calls."""
        found = _CALLED.findall(self.attributes)
        return tuple(name for one, many in found for name in re.findall(r"[\w.-]+", one or many))

    def attribute(self, name: str) -> str:
        """Return the text of a quoted attribute; "" if it is missing."""
        found = re.search(rf'\b{name}="([^"]*)"', self.attributes)
        return found[1] if found else ""


Computation = Mapping[str, Instruction]


@dataclass(frozen=True)
class Hlo:
    """A compiled program.

    Attributes:
      computations: instructions by name, in their order, by name of the computation.
      entry: name of the entry computation.
    """

    computations: Mapping[str, Computation]
    entry: str

    def executed(self) -> Iterator[tuple[Instruction, Computation, int]]:
        """Yield each executed instruction, its computation, and the number of its executions.

        A fusion is one instruction. The body of a loop is executed according to its trip count, or
        once if that is unknown. Every branch of a conditional is included.
        """
        yield from self._executed(self.entry, 1)

    def _executed(self, name: str, times: int) -> Iterator[tuple[Instruction, Computation, int]]:
        computation = self.computations[name]
        for instruction in computation.values():
            if instruction.opcode not in _CONTROL:
                yield instruction, computation, times
                continue
            found = _TRIP_COUNT.search(instruction.attributes)
            trips = int(found[1]) if found and instruction.opcode == "while" else 1
            for called in instruction.called:
                yield from self._executed(called, times * trips)

    def within(self, instruction: Instruction) -> Iterator[tuple[Instruction, Computation]]:
        """Yield the instructions in a fusion and in its nested fusions."""
        for called in instruction.called:
            computation = self.computations[called]
            for inner in computation.values():
                yield inner, computation
                if inner.opcode == "fusion":
                    yield from self.within(inner)


def parse_hlo(text: str) -> Hlo:
    """Parse the text of a compiled program, from `jax.stages.Compiled.as_text`.

    Raises:
      ValueError: the text has no entry computation.
    """
    computations: dict[str, dict[str, Instruction]] = {}
    current: dict[str, Instruction] = {}
    entry = ""
    for line in text.splitlines():
        if header := _COMPUTATION.match(line):
            current = computations[header[2]] = {}
            entry = header[2] if header[1] else entry
        elif found := _INSTRUCTION.match(line):
            instruction = _parse_instruction(found[2], found[3], bool(found[1]))
            if instruction is not None:
                current[instruction.name] = instruction
    if not entry:
        raise ValueError("HLO text: no ENTRY computation")
    return Hlo(computations, entry)


def _parse_instruction(name: str, text: str, root: bool) -> Instruction | None:
    end = _closing(text, 0) if text.startswith("(") else text.find(" ")
    shape, rest = text[:end], text[end:]
    opcode = _OPCODE.match(rest)
    if opcode is None:
        return None
    start = opcode.end() - 1
    end = _closing(rest, start)
    # Older versions of XLA write the type of an operand before its name, which starts with "%".
    inside = rest[start + 1 : end - 1]
    operands = re.findall(r"%([\w.-]+)", inside) or re.findall(r"[\w.-]+", inside)
    return Instruction(name, opcode[1], shape, tuple(operands), rest[end:], root)


def _closing(text: str, start: int) -> int:
    """Return the position after the parenthesis that closes the one at `start`."""
    depth = 0
    for found in re.finditer(r"[()]", text[start:]):
        depth += 1 if found[0] == "(" else -1
        if not depth:
            return start + found.end()
    return len(text)


@functools.cache
def _bytes(kind: str, bits: str, shape: str, layout: str = "") -> int:
    del layout
    entry = 1 if kind == "pred" else int(bits or 0) / 8
    return math.ceil(entry * math.prod(int(n) for n in shape.split(",") if n))
