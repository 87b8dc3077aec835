"""Power cuts: every state that POSIX lets a file system be in after one, at every moment of an operation.

What an operation does is recorded, then played back in a model: what was not synced is there or not, each name in a
directory for itself, the bytes of each file none, half or all. Every such state is laid out on disk and looked at.
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from storage.files import set_syncing
from storage.registry import Registry
from tests.storage.faults import between, path_of
from tests.storage.test_crashes import OPERATIONS, state_of

MOST_STATES = 48  # looked at for each moment; all of them where there are no more


# --- recording ---


@dataclass(frozen=True)
class Call:
    """One call: what was done to which path (or to the file open under it)."""

    name: str
    path: Path
    target: Path | None = None  # of a link or rename
    data: bytes = b""
    offset: int = 0


def record(action) -> list[Call]:
    """Do *action* and return what it did to files and directories, in order."""
    calls: list[Call] = []

    def after(name, args, result):
        if name == "open":
            calls.append(Call("create", Path(args[0])))
        elif name == "write":
            end = os.lseek(args[0], 0, os.SEEK_CUR)
            calls.append(Call("write", path_of(args[0]), data=args[1], offset=end - len(args[1])))
        elif name == "fsync":
            calls.append(Call("fsync", path_of(args[0])))
        elif name in ("link", "rename", "replace"):
            calls.append(Call("link" if name == "link" else "rename", Path(args[0]), Path(args[1])))
        else:
            descriptor = args[-1].get("dir_fd")
            path = Path(args[0]) if descriptor is None else path_of(descriptor) / args[0]
            calls.append(Call("remove" if name in ("unlink", "remove", "rmdir") else name, path))

    with between(after=after):
        action()
    return calls


# --- the model ---


@dataclass
class Node:
    """A file or directory: what a process sees of it, and what a power cut may leave."""

    is_directory: bool
    names: dict[str, Node] = field(default_factory=dict)
    durable_names: dict[str, Node] = field(default_factory=dict)
    data: bytes = b""
    durable_data: bytes = b""


class Disk:
    """The storage as the kernel has it, beside the part of it that is bound to survive."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.top = self._read(root)

    def _read(self, path: Path) -> Node:
        if path.is_dir():
            names = {entry.name: self._read(entry) for entry in path.iterdir()}
            return Node(True, names=names, durable_names=dict(names))
        content = path.read_bytes()
        return Node(False, data=content, durable_data=content)

    def _find(self, path: Path) -> Node:
        node = self.top
        for part in path.relative_to(self.root).parts:
            node = node.names[part]
        return node

    def play(self, call: Call) -> None:
        if call.name == "fsync":
            node = self._find(call.path)
            node.durable_data, node.durable_names = node.data, dict(node.names)
            return
        folder, name = self._find(call.path.parent), call.path.name
        if call.name == "create":
            folder.names.setdefault(name, Node(False))
        elif call.name == "mkdir":
            folder.names[name] = Node(True)
        elif call.name == "write":
            node = folder.names[name]
            node.data = node.data[: call.offset] + call.data + node.data[call.offset + len(call.data) :]
        elif call.name == "link":
            self._find(call.target.parent).names[call.target.name] = folder.names[name]
        elif call.name == "rename":
            self._find(call.target.parent).names[call.target.name] = folder.names.pop(name)
        else:
            assert call.name == "remove", call.name
            del folder.names[name]

    def states(self, chance: random.Random):
        """Yield what a power cut may leave: choose for each thing that was not synced."""
        unsure = list(self._unsure(self.top, set()))
        sizes = [len(options) for _, _, options in unsure]
        total = 1
        for size in sizes:
            total *= size
        if total <= MOST_STATES:
            choices = itertools.product(*(range(size) for size in sizes))
        else:
            choices = {tuple(chance.randrange(size) for size in sizes) for _ in range(MOST_STATES)}
            choices |= {(0,) * len(sizes), tuple(size - 1 for size in sizes)}
        for choice in choices:
            chosen = {(id(node), name): options[i] for (node, name, options), i in zip(unsure, choice, strict=True)}
            yield self._lay_out(self.top, chosen)

    def _unsure(self, node: Node, seen: set[int]):
        if id(node) in seen:
            return
        seen.add(id(node))
        if node.is_directory:
            for name in sorted({*node.names, *node.durable_names}):
                options = [node.durable_names.get(name), node.names.get(name)]
                if options[0] is not options[1]:
                    yield node, name, options
                for option in options:
                    if option is not None:
                        yield from self._unsure(option, seen)
        elif node.data != node.durable_data:
            torn = node.data[: (len(node.data) + len(node.durable_data)) // 2]
            yield node, None, [node.durable_data, torn, bytes(len(node.data)), node.data]

    def _lay_out(self, node: Node, chosen) -> object:
        if not node.is_directory:
            return chosen.get((id(node), None), node.data)
        result = []
        for name in sorted({*node.names, *node.durable_names}):
            below = chosen.get((id(node), name), node.names.get(name))
            if below is not None:
                result.append((name, self._lay_out(below, chosen)))
        return tuple(result)


def write_out(state: object, path: Path) -> None:
    """Lay *state* out on disk."""
    if isinstance(state, bytes):
        path.write_bytes(state)
        return
    path.mkdir()
    for name, below in state:
        write_out(below, path / name)


# --- the operations ---


@pytest.fixture
def _syncing():
    set_syncing(True)
    yield
    set_syncing(False)


@pytest.mark.usefixtures("_syncing")
@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS.keys())
def test_every_state_that_a_power_cut_leaves_is_a_correct_one(operation, tmp_path):
    set_syncing(False)
    root = tmp_path / "data"
    operation.prepare(Registry(root))
    before = state_of(root)
    disk = Disk(root)
    set_syncing(True)
    registry = Registry(root)
    calls = record(lambda: operation.act(registry))
    after = state_of(root)
    set_syncing(False)

    def look(state) -> object:
        shutil.rmtree(root)
        write_out(state, root)
        return state_of(root)

    chance, judged = random.Random(7), {}
    for call in calls:
        disk.play(call)
        for state in disk.states(chance):
            if state not in judged:
                judged[state] = look(state)
                assert judged[state] in (before, after), f"a power cut after {call}"
    for state in disk.states(chance):  # once it has answered
        assert judged.setdefault(state, None) == after or look(state) == after

    assert len(judged) > len(calls) / 3
