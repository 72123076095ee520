"""DB-GPT's own TOML (`[[models.llms]]`, `[service.model.*]`) as files in our sections.

Owns the translation, with a warning for each key that is not honoured; must not check values: what
it hands out is parsed like any other file, problems keep DB-GPT's names and lines.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from smmf_core.config import dbgpt_keys as keys
from smmf_core.config.kinds import holds_models
from smmf_core.config.lines import Path
from smmf_core.config.problems import ConfigProblems, Problem, nearest
from smmf_core.config.providers import canonical
from smmf_core.config.raw import REFERENCE, RawConfig

_NOT_READ = "not read: this is for DB-GPT's own application"


def model_files(raw: RawConfig, env: Mapping[str, str]) -> list[RawConfig]:
    """The file's models in its order, warnings with the first. `env` decides what a provider given
    by a reference is; all other references stay."""
    drafts: list[_Draft] = []
    for name, task in keys.LISTS.items():
        for number, entry in enumerate(_entries(raw, name)):
            drafts.append(_draft(raw, ("models", name, str(number)), entry, task, env))
    if not drafts:
        message = "no model in it ([[models.llms]] ...): give it with --config"
        raise ConfigProblems([Problem(raw.source, 0, "[models]", "file", message)])
    drafts[0].warnings[:0] = _unread(raw)
    return [draft.finish() for draft in drafts]


class _Draft:
    """One entry of a list on its way into our sections."""

    def __init__(self, raw: RawConfig, at: Path, entry: dict[str, Any]) -> None:
        self.raw = raw
        self.at = at  # ("models", "llms", "0")
        self.entry = entry
        self.table: dict[str, Any] = {"model": {}}
        self.lines: dict[Path, int] = {}
        self.names: dict[Path, str] = {}
        self.warnings: list[Problem] = []

    def put(self, key: str, place: keys.Place, value: Any) -> None:
        """A value under our section and key; what stands there is kept."""
        self.table.setdefault(place[0], {}).setdefault(place[1], value)
        self.mark(key, place)

    def mark(self, key: str, place: keys.Place) -> None:
        """What the operator calls our key, given or not."""
        self.lines[place] = self._line(key)
        self.names[place] = self.called(key)

    def _line(self, key: str) -> int:
        return self.raw.lines.get((*self.at, key)) or self.raw.lines.get(self.at, 0)

    def called(self, key: str) -> str:
        return f"[[{self.at[0]}.{self.at[1]}]] {key}"

    def warn(self, key: str, message: str) -> None:
        problem = Problem(self.raw.source, self._line(key), self.called(key), "warning", message)
        self.warnings.append(problem)

    def finish(self) -> RawConfig:
        return RawConfig(self.table, self.raw.source, self.lines, self.names, self.warnings)


def _entries(raw: RawConfig, name: str) -> list[dict[str, Any]]:
    found = _at(raw.table, ("models", name)) or []
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
        problem = raw.problem(("models", name), "type", f"expected tables [[models.{name}]]")
        raise ConfigProblems([problem])
    return found


def _draft(
    raw: RawConfig, at: Path, entry: dict[str, Any], task: str, env: Mapping[str, str]
) -> _Draft:
    draft = _Draft(raw, at, entry)
    provider = _filled_in(str(entry.get("provider", "")), env)
    draft.mark("name", ("model", "name"))
    if "name" in entry:
        draft.put("name", ("model", "name"), entry["name"])
    draft.put("task", ("model", "task"), task)
    if provider.startswith("proxy/"):
        _remote(draft, provider)
    else:
        _local(draft, provider)
    return draft


def _local(draft: _Draft, provider: str) -> None:
    """A provider that has no backend here is left for the parser to name."""
    draft.mark("provider", ("model", "backend"))
    if provider:
        draft.put("provider", ("model", "backend"), keys.BACKENDS.get(provider, provider))
    places = keys.LOCAL.get(provider, keys.LOCAL["hf"])
    for key, value in draft.entry.items():
        if key in places:
            place = places[key]
            others = keys.VALUES.get(place, {})
            draft.put(key, place, others.get(value, value) if _is_plain(value) else value)
        elif key not in keys.SILENT:
            _local_specially(draft, provider, key, value, places)
    if str(draft.entry.get("num_gpus", 1)) != "1":
        draft.put("num_gpus", ("engine", "device_map"), "auto")
    if "path" not in draft.entry:
        draft.put("name", ("model", "path"), draft.entry.get("name", ""))
        message = "no path: a folder of this name is expected beside the file; models from a hub"
        draft.warn("name", f"{message} are not in this release yet")


def _local_specially(
    draft: _Draft, provider: str, key: str, value: Any, places: Mapping[str, keys.Place]
) -> None:
    """Keys whose values need more than another place; the others are warned of."""
    if key == "quantization" and isinstance(value, dict):
        _quantization(draft, value)
    elif key == "prefer_cpu":
        if value is True:
            draft.put(key, ("deployment", "device"), "cpu")
    elif key == "ctx_size":
        _context_of_a_slot(draft, value)
    elif provider == "vllm" and key == "extras" and isinstance(value, dict):
        for name, extra in value.items():
            draft.put(key, ("engine", name), extra)
    elif provider == "vllm" and key not in ("prompt_template", "reasoning_model"):
        draft.put(key, ("engine", key), value)
    else:
        draft.warn(key, f"not honoured here{nearest(key, places)}")


def _quantization(draft: _Draft, given: dict[str, Any]) -> None:
    """bitsandbytes, by its type or by its switches."""
    bits = {"8": "load_in_8bit", "4": "load_in_4bit"}
    for digit, ours in bits.items():
        if f"{digit}bit" in str(given.get("type")) or given.get(f"load_in_{digit}bits"):
            draft.put("quantization", ("optimization", ours), True)
    known = {"type", "load_in_8bits", "load_in_4bits"}
    if others := sorted(given.keys() - known):
        draft.warn("quantization", f"not honoured here: {', '.join(others)}")


def _context_of_a_slot(draft: _Draft, size: Any) -> None:
    """llama-server shares ctx_size among its slots; n_ctx is of one sequence."""
    slots = draft.entry.get("n_slots", 1)
    if isinstance(size, int) and isinstance(slots, int) and slots > 0:
        size //= slots
    draft.put("ctx_size", ("engine", "n_ctx"), size)


def _remote(draft: _Draft, provider: str) -> None:
    """An unknown provider with an address is one more that speaks OpenAI's protocol."""
    if draft.entry.get("api_type") == "azure":
        provider = "azure"
    if canonical(provider) is None and draft.entry.keys() & {"api_base", "api_url"}:
        draft.warn("provider", f"'{provider}' is not known here: taken as OpenAI's protocol")
        provider = "openai"
    draft.put("provider", ("proxy", "provider"), provider.removeprefix("proxy/"))
    for key, value in draft.entry.items():
        if key in keys.REMOTE:
            draft.put(key, keys.REMOTE[key], value)
        elif key not in keys.SILENT and key != "api_type":
            draft.warn(key, f"not honoured here{nearest(key, keys.REMOTE)}")


def server_file(raw: RawConfig) -> RawConfig:
    """The server's settings of a file, which serves its models too.

    DB-GPT's API server is our Router's address and keys, its controller our admin API; its workers
    have no address here. A controller open to all without keys is opened to this machine only.
    """
    table: dict[str, Any] = {}
    lines: dict[Path, int] = {}
    names: dict[Path, str] = {}
    for path, place in keys.SERVER.items():
        value = _at(raw.table, path)
        if value is None or value == "" or value == []:
            continue
        table.setdefault(place[0], {}).setdefault(place[1], _server_value(place, value))
        lines[place] = raw.lines.get(path, 0)
        names[place] = f"[{'.'.join(path[:-1])}] {path[-1]}"
    warnings = list(_unread(raw))
    warnings += _address(raw, table.setdefault("server", {}))
    if url := _database(_at(raw.table, ("service", "model", "controller", "registry", "database"))):
        table["registry"] = {"url": url}
    if holds_models(raw.table):
        table["models"] = [_file_name(raw.source)]
    return RawConfig(table, raw.source, lines, names, warnings)


def _address(raw: RawConfig, server: dict[str, Any]) -> Iterator[Problem]:
    """DB-GPT's own ports where it has the section, and no admin API open to all without a key."""
    services = _table(raw.table, "service", "model")
    if services.keys() & {"controller", "api"}:
        server.setdefault("port", keys.PORTS["port"])
        server.setdefault("admin_port", keys.PORTS["admin_port"])
    if server.get("admin_host") and not server.get("api_keys"):
        host = server.pop("admin_host")
        path = ("service", "model", "controller", "host")
        if host not in ("127.0.0.1", "localhost", "::1"):
            message = "without api_keys only this machine may administer: 127.0.0.1"
            yield raw.problem(path, "warning", message)


def _server_value(place: keys.Place, value: Any) -> Any:
    """Lists may be written as one string with commas; levels in capitals."""
    if place in keys.LISTED and isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    if place == ("log", "level") and isinstance(value, str):
        return keys.LEVELS.get(value.lower(), value.lower())
    return value


def _database(given: Any) -> str:
    """SQLAlchemy's URL of DB-GPT's database section; "": none."""
    if not isinstance(given, dict):
        return ""
    kind = given.get("type", "sqlite")
    if kind == "sqlite":
        return f"sqlite:///{given['path']}" if given.get("path") else ""
    driver = {"postgresql": "postgresql+psycopg", "mysql": "mysql+pymysql"}.get(kind, kind)
    user = f"{given.get('user', '')}:{given.get('password', '')}@"
    port = f":{given['port']}" if given.get("port") else ""
    return f"{driver}://{user}{given.get('host', 'localhost')}{port}/{given.get('database', '')}"


def _unread(raw: RawConfig) -> Iterator[Problem]:
    """A warning for each section that only DB-GPT's application reads."""
    for key in _table(raw.table, "models"):
        if key not in keys.LISTS:
            message = "not honoured here: a request names its model"
            yield raw.problem(("models", key), "warning", message)
    for section in raw.table:
        if section not in ("models", "service", "system", "log"):
            yield raw.problem((section,), "warning", _NOT_READ)
    for service in _table(raw.table, "service"):
        if service != "model":
            yield raw.problem(("service", service), "warning", _NOT_READ)


def _table(table: Any, *path: str) -> dict[str, Any]:
    """The table at a place; an empty one if there is none."""
    found = _at(table, path)
    return found if isinstance(found, dict) else {}


def _at(table: Any, path: Path) -> Any:
    for part in path:
        table = table.get(part) if isinstance(table, dict) else None
    return table


def _filled_in(text: str, env: Mapping[str, str]) -> str:
    def value(found: Any) -> str:
        name, _, default = found[2].partition(":-")
        return env.get(name, "") or default

    return REFERENCE.sub(value, text)


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | int)


def _file_name(source: str) -> str:
    return source.replace("\\", "/").rpartition("/")[2]
