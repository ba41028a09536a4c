"""Unpacking against a model that knows nothing of descriptors: paths in a dictionary, one rule a line."""

from hypothesis import given, settings
from hypothesis import strategies as st

from casemate.errors import Refused
from casemate.image.unpack import Unpacker
from casemate.testing import tars

PATHS = [(a, *rest) for a in "ab" for rest in [(), ("a",), ("b",), ("a", "a"), ("a", "b"), ("b", "b")]]
OPERATIONS = st.tuples(st.sampled_from(["file", "folder", "whiteout", "opaque"]), st.sampled_from(PATHS))
LAYERS = st.lists(st.lists(OPERATIONS, max_size=7), min_size=1, max_size=3)


class Model:
    """A tree as {path: content}, None for a folder; `brought` is what the layer at hand has placed."""

    def __init__(self):
        self.tree, self.lowest = {(): None}, True

    def layer(self, operations, number):
        self.brought = set()
        for position, (operation, path) in enumerate(operations):
            content = f"{number}.{position}"
            if operation in ("whiteout", "opaque"):
                if self.parents(path, create=False):
                    self.hide(path, opaque=operation == "opaque")
                continue
            self.parents(path, create=True)
            if path in self.tree and not (operation == "folder" and self.tree[path] is None):
                if self.mine(path):
                    raise Refused([])
                self.drop(path)
            self.tree[path] = content if operation == "file" else None
            self.brought.add(path)
        self.lowest = False

    def mine(self, path):
        return self.lowest or path in self.brought

    def parents(self, path, *, create):
        for end in range(1, len(path)):
            parent = path[:end]
            if self.tree.get(parent, None) is not None:
                raise Refused([])
            if parent not in self.tree:
                if not create:
                    return False
                self.tree[parent] = None
            if create:
                self.brought.add(parent)
        return True

    def hide(self, path, *, opaque):
        if path not in self.tree:
            return
        if opaque and self.tree[path] is not None:
            raise Refused([])
        if not opaque and not self.mine(path):
            self.drop(path)
        elif self.tree[path] is None and not self.lowest:
            for child in [p for p in self.tree if p[:-1] == path and p]:
                self.hide(child, opaque=False)

    def drop(self, path):
        for inner in [p for p in self.tree if p[: len(path)] == path]:
            del self.tree[inner]


def tar(operations, number):
    parts = []
    for position, (operation, path) in enumerate(operations):
        name = "/".join(path).encode()
        folder, _, last = name.rpartition(b"/")
        if operation == "file":
            parts.append(tars.file(name, f"{number}.{position}".encode()))
        elif operation == "folder":
            parts.append(tars.folder(name))
        elif operation == "whiteout":
            parts.append(tars.file(folder + b"/.wh." + last if folder else b".wh." + last))
        else:
            parts.append(tars.file(name + b"/.wh..wh..opq"))
    return tars.tar(*parts)


@settings(max_examples=250, deadline=None)
@given(LAYERS)
def test_model(tmp_path_factory, layers):
    root = tmp_path_factory.mktemp("model")
    model, expected = Model(), None
    try:
        for number, operations in enumerate(layers):
            model.layer(operations, number)
        expected = {p: content for p, content in model.tree.items() if p}
    except Refused:
        pass
    try:
        with Unpacker(root) as unpacker:
            for number, operations in enumerate(layers):
                unpacker.layer([tar(operations, number)])
    except Refused:
        assert expected is None
        return
    found = {p.relative_to(root).parts: None if p.is_dir() else p.read_text() for p in root.rglob("*")}
    assert found == expected
