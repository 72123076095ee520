"""Who waits for a Worker's answer gets it, or hears why there will be none."""

from __future__ import annotations

import asyncio

import pytest

from smmf_core.control_messages import Inspect, Inspected
from smmf_core.controller.questions import Questions
from smmf_core.errors import ControlError
from smmf_core.lifecycle import Child


def worker(number: int) -> Child:
    child = Child("worker", number, f"m-{number}", 0)
    child.connected = True
    return child


def ask(*events: str) -> list[object]:
    """Two are asked at once; what each question ended with."""
    return asyncio.run(_ask(events))


async def _ask(events: tuple[str, ...]) -> list[object]:
    asked: list[tuple[Child, Inspect]] = []
    questions = Questions(lambda child, message: asked.append((child, message)))
    children = [worker(0), worker(1)]
    waiting = [asyncio.create_task(questions.inspect(child)) for child in children]
    await asyncio.sleep(0)
    for event in events:
        number = int(event[-1])
        if event.startswith("answers"):
            child, message = asked[number]
            questions.answered(child, Inspected(message.serial, {"who": child.name}))
        elif event.startswith("lies"):  # with the other's number
            questions.answered(children[number], Inspected(asked[1 - number][1].serial, {}))
        else:
            questions.died(children[number])
    return await asyncio.gather(*waiting, return_exceptions=True)


def test_answers_find_their_questions() -> None:
    assert ask("answers 1", "answers 0") == [{"who": "m-0"}, {"who": "m-1"}]


def test_an_answer_to_anothers_question_is_none() -> None:
    assert ask("lies 1", "answers 0", "answers 1") == [{"who": "m-0"}, {"who": "m-1"}]


def test_one_that_dies_answers_nobody() -> None:
    ended, answered = ask("dies 0", "answers 1")
    assert str(ended) == "m-0 has ended"
    assert answered == {"who": "m-1"}


def test_one_that_is_not_connected_is_not_asked() -> None:
    child = worker(0)
    child.connected = False
    with pytest.raises(ControlError, match="cannot be asked"):
        asyncio.run(Questions(lambda child, message: None).inspect(child))
