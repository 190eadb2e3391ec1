"""The messages of MLCommons Chakra's execution traces, described for the protobuf library at run time.

From schema/protobuf/et_def.proto of github.com/mlcommons/chakra (schema 0.0.4). The numbers of the fields are the
format; nothing is compiled.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final

VERSION: Final = "0.0.4"
COMP_NODE: Final = 4
COMM_SEND_NODE: Final = 5
COMM_RECV_NODE: Final = 6
COMM_COLL_NODE: Final = 7
# CollectiveCommType by the kind of a dag's collective.
COLLECTIVE_TYPES: Final = {"all_reduce": 0, "all_gather": 2, "broadcast": 5, "all_to_all": 6, "reduce_scatter": 7}

_PACKAGE: Final = "ChakraProtoMsg"
_ENUMS: Final = {
    "NodeType": ("INVALID_NODE", "METADATA_NODE", "MEM_LOAD_NODE", "MEM_STORE_NODE", "COMP_NODE", "COMM_SEND_NODE",
                 "COMM_RECV_NODE", "COMM_COLL_NODE"),
}  # fmt: skip
# The types of an attribute's value, in the order of their fields: each alone and, after it, in a list.
_VALUES: Final = ("double", "float", "int32", "int64", "uint32", "uint64", "sint32", "sint64", "fixed32", "fixed64",
                  "sfixed32", "sfixed64", "bool", "string", "bytes")  # fmt: skip
# (field, type, number); a type that ends in * is repeated.
_MESSAGES: Final = {
    "GlobalMetadata": (("version", "string", 1), ("attr", "AttributeProto*", 2)),
    "IOInfo": (("values", "string", 1), ("shapes", "string", 2), ("types", "string", 3)),
    "Node": (
        ("id", "uint64", 1),
        ("name", "string", 2),
        ("type", "NodeType", 3),
        ("ctrl_deps", "uint64*", 4),
        ("data_deps", "uint64*", 5),
        ("start_time_micros", "uint64", 6),
        ("duration_micros", "uint64", 7),
        ("inputs", "IOInfo", 8),
        ("outputs", "IOInfo", 9),
        ("attr", "AttributeProto*", 10),
    ),
}


@cache
def messages() -> dict[str, Any]:
    """The message classes by their names.

    Raises:
        ImportError: the protobuf library is not installed.
    """
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(name="helixctl/et_def.proto", package=_PACKAGE, syntax="proto3")
    for name, members in _ENUMS.items():
        enum = file.enum_type.add(name=name)
        for number, member in enumerate(members):
            enum.value.add(name=member, number=number)
    attribute = file.message_type.add(name="AttributeProto")
    attribute.oneof_decl.add(name="value")
    for number, field in enumerate(("name", "doc_string"), 1):
        _add(attribute, field, "string", number)
    for place, kind in enumerate(_VALUES):
        listed = f"{kind.capitalize()}List"
        _add(file.message_type.add(name=listed), "values", f"{kind}*", 1)
        _add(attribute, f"{kind}_val", kind, 3 + 2 * place).oneof_index = 0
        _add(attribute, f"{kind}_list", listed, 4 + 2 * place).oneof_index = 0
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, kind, number in fields:
            _add(message, field, kind, number)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    names = ["AttributeProto", *_MESSAGES]
    return {n: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{n}")) for n in names}


def _add(message: Any, name: str, kind: str, number: int) -> Any:
    """Add a field to the description of a message."""
    from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Field

    plain = kind.removesuffix("*")
    label = Field.LABEL_REPEATED if kind != plain else Field.LABEL_OPTIONAL
    field = message.field.add(name=name, number=number, label=label)
    if plain in _VALUES:
        field.type = Field.Type.Value(f"TYPE_{plain.upper()}")
    else:
        field.type = Field.TYPE_ENUM if plain in _ENUMS else Field.TYPE_MESSAGE
        field.type_name = f".{_PACKAGE}.{plain}"
    return field
