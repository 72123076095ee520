"""An error of a chat's field names what the client of each dialect has written."""

from __future__ import annotations

import pytest

from smmf_core.api import anthropic, ollama, responses
from smmf_core.api.dialect import ErrorForm
from smmf_core.errors import ApiError

SCHEMA = "response_format.json_schema.schema"
PARAMETERS = "tools[12].function.parameters"


@pytest.mark.parametrize(
    ("form", "param", "shown"),
    [
        (responses.ERRORS, "messages", "input"),
        (responses.ERRORS, "max_completion_tokens", "max_output_tokens"),
        (responses.ERRORS, SCHEMA, "text.format.schema"),
        (responses.ERRORS, PARAMETERS, "tools[12].parameters"),
        (responses.ERRORS, "prompt", "prompt"),
        (anthropic.ERRORS, "messages", "messages"),
        (anthropic.ERRORS, SCHEMA, "output_config.format.schema"),
        (anthropic.ERRORS, PARAMETERS, "tools[12].input_schema"),
        (ollama.ERRORS, SCHEMA, "format"),
        (ollama.ERRORS, "max_tokens", "options.num_predict"),
        (ollama.ERRORS, PARAMETERS, PARAMETERS),
    ],
)
def test_fields_have_the_clients_names(form: ErrorForm, param: str, shown: str) -> None:
    body = form.body(ApiError("invalid_value", f"Invalid '{param}': no.", param), "r").decode()
    assert f"Invalid '{shown}': no." in body
    assert shown == param or param not in body


def test_a_field_is_named_once() -> None:
    """Where an envelope has no place for it, the message begins with it."""
    assert ApiError("invalid_value", "It is wrong.", "smmf_echo").told == "smmf_echo: It is wrong."
    assert ApiError("invalid_value", "smmf_echo: no", "smmf_echo").told == "smmf_echo: no"
