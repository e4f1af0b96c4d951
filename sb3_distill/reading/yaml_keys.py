"""YAML as ``yaml.SafeLoader`` reads it, except that a key that is written twice is an error."""

from collections.abc import Hashable, Iterable

import yaml

# Keys with a meaning of their own, which cannot be constructed: "<<" and "="
_SPECIAL = ("tag:yaml.org,2002:merge", "tag:yaml.org,2002:value")


class DuplicateKeyError(yaml.YAMLError):
    """A mapping has the same key twice. YAML parsers keep the last one and say nothing."""


class UniqueKeyLoader(yaml.SafeLoader):
    """A SafeLoader that refuses mappings with the same key twice. Keys that ``<<`` merges may be overridden."""

    def refuse_duplicates(self, key_nodes: Iterable[yaml.Node]) -> None:
        """
        :param key_nodes: the keys of one mapping
        :raises DuplicateKeyError: two of them are equal
        """
        lines: dict[Hashable, int] = {}
        for node in key_nodes:
            key = node.value if node.tag in _SPECIAL else self.construct_object(node, deep=True)
            if not isinstance(key, Hashable):
                # PyYAML refuses it.
                continue
            line = node.start_mark.line + 1
            if key in lines:
                where = f"in line {line}" if line == lines[key] else f"in line {lines[key]} and in line {line}"
                raise DuplicateKeyError(f"The key {node.value!r} is written twice, {where}. Keep one of them.")
            lines[key] = line

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """PyYAML calls this before it reads a mapping. It puts the keys that ``<<`` merges among the mapping's own."""
        # Mappings come by again after that, when their keys are no longer as they were written.
        checked: set[yaml.Node] = self.__dict__.setdefault("_checked", set())
        if node not in checked:
            checked.add(node)
            self.refuse_duplicates(key for key, _ in node.value)
        super().flatten_mapping(node)
