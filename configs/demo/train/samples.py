"""Conversations for the model card: written by hand, so that many are worded as training never words them.

A turn is the user's unless it begins with one of ROLES and a colon; "has tool" defines a tool.
"""

ROLES = ("system", "tool", "has tool")

SAMPLES = [
    ["Hello!", "Who are you?", "Thanks, bye!"],
    ["My name is Ada.", "What is the capital of France?", "What is my name?"],
    ["hey what's up"],
    ["Hi! I'm Bartholomew and I come from Zurich. Where do I come from?"],
    ["What is a router?", "And what is a worker?"],
    ["Why do we batch requests?"],
    ["What is the difference between a router and a worker?"],
    ["Tell me a story about a fox named Momo in the garden."],
    ["Write a story about two robots on the moon."],
    ["Repeat: zorp-4821"],
    ["Say exactly: The quick brown fox jumps over the lazy dog."],
    ["Repeat: Fj39-xK2q_0018/aa"],
    ["Please echo back the string qwertyuiop1234567890"],
    ["Count from 1 to 15."],
    ["What is 7 times 8?"],
    ["What is 123 plus 456?"],
    ["What is the capital of Portugal?", "And of Japan?"],
    ["What is the capital of Mongolia?"],
    ["What is the opposite of hot?"],
    ["Name three animals."],
    ["system: Answer in one word.", "What is the capital of Spain?"],
    ["system: You are Marvin, a tired robot.", "Who are you?"],
    ["system: You are a helpful assistant.", "Can you write me a poem about the sea?"],
    ["Answer as JSON with keys name and age: Ada is 36"],
    ["Answer as JSON with keys city and population: Utrecht has 361924 people"],
    [
        'has tool: {"name": "get_weather", "description": "Get the weather of a city.", "parameters": '
        '{"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}',
        "What is the weather in Paris?",
        'tool: {"temperature": 21, "sky": "clear"}',
        "Thank you!",
    ],
    [
        'has tool: {"name": "vorp_lookup", "parameters": {"type": "object", "properties": '
        '{"ticket": {"type": "string"}, "limit": {"type": "integer"}}}}',
        "Call vorp_lookup with ticket = QX-7731 and limit = 5.",
        "tool: 3 rows found",
    ],
    [
        'has tool: {"name": "book_table", "description": "Book a table in a restaurant.", "parameters": '
        '{"type": "object", "properties": {"guests": {"type": "integer"}, "time": {"type": "string"}}}}',
        "I would like to eat out with four friends at eight tonight.",
    ],
    ["Who won the football world cup in 1998?"],
    ["Is a whale a fish?"],
    ["Write a haiku."],
    ["Do you love me?"],
]
