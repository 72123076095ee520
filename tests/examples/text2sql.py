"""Questions to a SQLite database: the model fills in the parts of a query, this program runs it.

The JSON Schema is made from the database, and the answer is held to it while it is generated: a
column or a name that is not there cannot be asked for.

    smmf serve
    python tests/examples/text2sql.py "What is the job of Grace?"

OPENAI_BASE_URL and MODEL name another server and another model.
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
from typing import Any

from openai import OpenAI

MODEL = os.environ.get("MODEL", "demo")
TABLE = "CREATE TABLE people (name TEXT, age INTEGER, city TEXT, job TEXT);"
PEOPLE = [
    ("Ada", 36, "London", "engineer"),
    ("Grace", 85, "New York", "admiral"),
    ("Linus", 56, "Portland", "programmer"),
]
QUESTIONS = ["What is the age of Ada?", "What is the job of Grace?", "What is the city of Linus?"]

client = OpenAI(
    base_url=os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8000/v1"),
    api_key=os.environ.get("OPENAI_API_KEY", "unused"),
)


def open_database() -> sqlite3.Connection:
    database = sqlite3.connect(":memory:")
    database.execute(TABLE)
    database.executemany("INSERT INTO people VALUES (?, ?, ?, ?)", PEOPLE)
    return database


def schema_of(database: sqlite3.Connection) -> dict[str, Any]:
    """What a query may ask for: a column of the table, of a name that is in it."""
    columns = [row[1] for row in database.execute("PRAGMA table_info(people)")]
    names = [row[0] for row in database.execute("SELECT DISTINCT name FROM people")]
    return {
        "type": "object",
        "properties": {
            "column": {"type": "string", "enum": columns[1:]},
            "name": {"type": "string", "enum": names},
        },
        "required": ["column", "name"],
        "additionalProperties": False,
    }


def query_of(question: str, schema: dict[str, Any]) -> tuple[str, dict[str, str]]:
    """The SQL of a question, and what stands for its `:name`."""
    ask = f"Answer as JSON with keys column and name: {question}"
    said = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "system", "content": TABLE}, {"role": "user", "content": ask}],
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "query", "schema": schema, "strict": True},
        },
        temperature=0,
        max_tokens=100,
    )
    parts = json.loads(said.choices[0].message.content or "")
    return f"SELECT {parts['column']} FROM people WHERE name = :name", parts


if __name__ == "__main__":
    database = open_database()
    schema = schema_of(database)
    for question in [" ".join(sys.argv[1:])] if sys.argv[1:] else QUESTIONS:
        sql, parts = query_of(question, schema)
        print(question, sql, parts, *database.execute(sql, parts), sep="\n  ")
