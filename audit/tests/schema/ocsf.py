"""Records on standard input, one a line, against the published OCSF schema.

    ocsf.py check   says what does not fit and fails if anything does not
    ocsf.py table   prints what the schema says about every member that the records use

Needs the packages ocsf-json-schema and jsonschema.
"""

import json
import sys

from jsonschema import Draft202012Validator
from ocsf_json_schema import OcsfJsonSchemaEmbedded, get_ocsf_schema

VERSION = "1.8.0"


def validator(schemas, schema, record):
    profiles = sorted(record["metadata"].get("profiles", []))
    key = (record["class_uid"], tuple(profiles))
    if key not in schemas:
        name = schema.lookup_class_name_from_uid(record["class_uid"])
        schemas[key] = Draft202012Validator(schema.get_class_schema(name, profiles))
    return schemas[key]


def check(records):
    schema = OcsfJsonSchemaEmbedded(get_ocsf_schema(VERSION))
    schemas, faults = {}, 0
    for number, record in enumerate(records, 1):
        for error in validator(schemas, schema, record).iter_errors(record):
            faults += 1
            where = "/".join(str(part) for part in error.absolute_path)
            print(f"record {number} ({record['type_name']}) at /{where}: {error.message}")
    print(f"{len(records)} records against OCSF {VERSION}: {faults} faults")
    return 1 if faults or not records else 0


def describe(attribute):
    entry = {"type": attribute["object_type"] if attribute["type"] == "object_t" else attribute["type"]}
    if attribute.get("is_array"):
        entry["array"] = True
    if "enum" in attribute and attribute["type"] == "integer_t":
        entry["enum"] = sorted(int(value) for value in attribute["enum"])
    return entry


def walk(table, raw, kind, key, definition, value, profiles):
    def applies(attribute):
        wanted = attribute.get("profiles") or []
        return not wanted or any(profile in profiles for profile in wanted)

    entry = table[kind].setdefault(
        key,
        {
            "required": sorted(
                name
                for name, attribute in definition["attributes"].items()
                if attribute.get("requirement") == "required" and applies(attribute)
            ),
            "at_least_one": sorted((definition.get("constraints") or {}).get("at_least_one", [])),
            "attributes": {},
        },
    )
    for name, member in value.items():
        attribute = definition["attributes"].get(name)
        if attribute is None or not applies(attribute):
            sys.exit(f"{kind} {key} has no member {name} in OCSF {VERSION}")
        entry["attributes"][name] = describe(attribute)
        if attribute["type"] == "object_t" and attribute["object_type"] != "object":
            child = attribute["object_type"]
            for item in member if attribute.get("is_array") else [member]:
                walk(table, raw, "objects", child, raw["objects"][child], item, profiles)


def table(records):
    raw = get_ocsf_schema(VERSION)
    classes = {definition["uid"]: definition for definition in raw["classes"].values()}
    result = {"version": VERSION, "classes": {}, "objects": {}}
    for record in records:
        uid = record["class_uid"]
        profiles = record["metadata"].get("profiles", [])
        walk(result, raw, "classes", str(uid), classes[uid], record, profiles)
    print(json.dumps(result, indent=1, sort_keys=True))
    return 0


if __name__ == "__main__":
    commands = {"check": check, "table": table}
    if len(sys.argv) != 2 or sys.argv[1] not in commands:
        sys.exit(__doc__)
    lines = [json.loads(line) for line in sys.stdin if line.strip()]
    sys.exit(commands[sys.argv[1]](lines))
