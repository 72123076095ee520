"""The page that lists every key, `configs/KEYS.md`: written from the same structs as the schemas.

Owns its wording; must not say what the structs do not.
"""

from __future__ import annotations

import json
from typing import Any

from smmf_core.config.json_schema import Schema, schemas
from smmf_core.config.later import KEYS, MESSAGE, SECTIONS, VALUES
from smmf_core.config.providers import PROVIDERS
from smmf_core.config.targets import bundled

_HEAD = f"""# Every key

Written by `python -m smmf_core.config.key_pages` from the structs that check the files. The JSON
Schemas in `schema/` come from them too; an editor reads one when a file starts with `#:schema`.
A key that is not here is an error that names the nearest one. What is of a later release is
refused as "{MESSAGE}"; it is at the end.

Strings may hold `${{env:NAME}}`, `${{env:NAME:-default}}` and `${{file:PATH}}`, also where a number
or a truth value is expected.
"""
_FILES = {
    "model.schema.json": "A local model: `local-NAME.toml`",
    "proxy.schema.json": "A remote model: `proxy-NAME.toml`",
    "server.schema.json": "The server: `smmf.toml`",
}
_WORDS = {"array": "list", "object": "table", "boolean": "true, false"}
_BOUNDS = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<="}
_TAIL = """
`model_name`, `model_type` and `model_path` are other names of `[model]` name, type and path; in
`[proxy]`, too. In `[authentication]` a provider's own names are understood, as `openai_api_key`,
`openai_api_base`, `wenxin_secret_key`: any of its names with `_api_key`, `_api_base`,
`_secret_key`, `_api_secret` or `_app_id`.

DB-GPT's own files load as they are (`smmf check` warns of what is not honoured in them).
"""


def page() -> str:
    parts = [_HEAD]
    found = schemas()
    for name, title in _FILES.items():
        parts.append(f"\n## {title}\n")
        parts += [_table(key, part) for key, part in found[name]["properties"].items()]
        parts += _engines(found[name])
    return "".join([*parts, _TAIL, _later()])


def _table(section: str, schema: Schema) -> str:
    """Nothing for what has no keys of its own, and for sections of a later release."""
    keys = schema.get("properties")
    if not keys or section in SECTIONS:
        return ""
    says = schema.get("description", "")
    rows = [_row(key, part) for key, part in keys.items() if not key.startswith("model_")]
    return f"\n{says}\n\n| key | default | values | |\n|---|---|---|---|\n{''.join(rows)}"


def _engines(schema: Schema) -> list[str]:
    """[engine] of each backend; one that is the same under every task stands here once."""
    engines = [rule["then"]["properties"]["engine"] for rule in schema.get("allOf", [])]
    return list(dict.fromkeys(_table("engine", engine) for engine in engines))


def _row(key: str, schema: Schema) -> str:
    if key == "provider":
        return f"| `{key}` |  | {_providers()} | {schema.get('description', '')} |\n"
    kind = schema["anyOf"][0] if "$ref" in json.dumps(schema.get("anyOf", "")) else schema
    default = f"`{json.dumps(schema['default'])}`" if schema.get("default") is not None else ""
    return f"| `{key}` | {default} | {_values(kind)} | {schema.get('description', '')} |\n"


def _providers() -> str:
    names = (
        f"`{name}`" + "".join(f" = `{o}`" for o in others) for name, others in PROVIDERS.items()
    )
    return ", ".join(names)


def _values(kind: Any) -> str:
    """What a key takes, in few words."""
    if "enum" in kind:
        return ", ".join(f"`{value}`" if value else '`""`' for value in kind["enum"])
    if "anyOf" in kind:
        return " or ".join(_values(part) for part in kind["anyOf"] if part != {"type": "null"})
    text = _WORDS.get(kind.get("type"), kind.get("type", ""))
    bounds = [f"{sign} {kind[name]}" for name, sign in _BOUNDS.items() if name in kind]
    return f"{text} {', '.join(bounds)}".strip()


def _later() -> str:
    rows = [f"`[{section}]`" for section in SECTIONS]
    rows += [f"`[{section}] {key}`" for section, key in KEYS]
    rows += [
        f'`[{section}] {key} = "{value}"`'
        for (section, key), values in VALUES.items()
        for value in sorted(values)
    ]
    return f"\n## Of a later release\n\n{', '.join(rows)}.\n"


def main() -> None:
    (bundled("smmf.toml").parent / "KEYS.md").write_text(page(), "utf-8")


if __name__ == "__main__":
    main()
