"""What each family's prompt looks like, written from the published formats: model cards and the
code published with the checkpoints.

Per template two prompts: system text, question, answer, question; and one question alone.
"""

CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello!"},
    {"role": "user", "content": "Bye"},
]
QUESTION = [{"role": "user", "content": "Hi"}]
_BEGIN = "<\uff5cbegin\u2581of\u2581sentence\uff5c>"
_END = "<\uff5cend\u2581of\u2581sentence\uff5c>"
_USER, _ANSWER = "<\uff5cUser\uff5c>", "<\uff5cAssistant\uff5c>"
RENDERED = {
    "alpaca": (
        "Be brief.\n\n### Instruction:\nHi\n\n### Response:Hello!</s>\n\n"
        "### Instruction:\nBye\n\n### Response:",
        "Below is an instruction that describes a task. Write a response that "
        "appropriately completes the request.\n\n### Instruction:\nHi\n\n"
        "### Response:",
    ),
    "baichuan": (
        "Be brief.<reserved_102>Hi<reserved_103>Hello!<reserved_102>Bye<reserved_103>",
        "<reserved_102>Hi<reserved_103>",
    ),
    "baichuan2": (
        "Be brief.<reserved_106>Hi<reserved_107>Hello!<reserved_106>Bye<reserved_107>",
        "<reserved_106>Hi<reserved_107>",
    ),
    "chatglm": (
        "Be brief.\n[Round 0]\n\u95ee\uff1aHi\n\u7b54\uff1aHello!\n[Round 1]\n\u95ee\uff1aBye\n"
        "\u7b54\uff1a[gMASK]<sop>",
        "Hi[gMASK]<sop>",
    ),
    "chatglm2": (
        "[gMASK]sopBe brief.\n\n[Round 1]\n\n\u95ee\uff1aHi\n\n\u7b54\uff1aHello!\n\n[Round 2]\n\n"
        "\u95ee\uff1aBye\n\n\u7b54\uff1a",
        "[gMASK]sop[Round 1]\n\n\u95ee\uff1aHi\n\n\u7b54\uff1a",
    ),
    "chatglm3": (
        "[gMASK]sop<|system|>\n Be brief.<|user|>\n Hi<|assistant|>\n"
        " Hello!<|user|>\n Bye<|assistant|>",
        "[gMASK]sop<|user|>\n Hi<|assistant|>",
    ),
    "chatml": (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n"
        "Hi<|im_end|>\n<|im_start|>assistant\nHello!<|im_end|>\n"
        "<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n",
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
    ),
    "deepseek": (
        f"{_BEGIN}Be brief.\n\nUser: Hi\n\nAssistant: Hello!{_END}User: Bye\n\nAssistant:",
        f"{_BEGIN}User: Hi\n\nAssistant:",
    ),
    "deepseek-coder": (
        f"{_BEGIN}Be brief.\n### Instruction:\nHi\n### Response:\nHello!\n<|EOT|>\n"
        "### Instruction:\nBye\n### Response:",
        f"{_BEGIN}You are an AI programming assistant, utilizing the Deepseek Coder model, "
        "developed by Deepseek Company, and you only answer questions related to computer science. "
        "For politically sensitive questions, security and privacy issues, and other non-computer "
        "science questions, you will refuse to answer\n### Instruction:\nHi\n### Response:",
    ),
    "deepseek-r1": (
        f"{_BEGIN}Be brief.{_USER}Hi{_ANSWER}Hello!{_END}{_USER}Bye{_ANSWER}<think>\n",
        f"{_BEGIN}{_USER}Hi{_ANSWER}<think>\n",
    ),
    "deepseek-v3": (
        f"{_BEGIN}Be brief.{_USER}Hi{_ANSWER}Hello!{_END}{_USER}Bye{_ANSWER}",
        f"{_BEGIN}{_USER}Hi{_ANSWER}",
    ),
    "falcon": (
        "Be brief.\n\nUser: Hi\n\nAssistant: Hello!\n\nUser: Bye\n\nAssistant:",
        "User: Hi\n\nAssistant:",
    ),
    "falcon-chat": (
        "System: Be brief.\nUser: Hi\nFalcon: Hello!\nUser: Bye\nFalcon:",
        "User: Hi\nFalcon:",
    ),
    "gemma": (
        "<bos><start_of_turn>user\nBe brief.\n\nHi<end_of_turn>\n"
        "<start_of_turn>model\nHello!<end_of_turn>\n"
        "<start_of_turn>user\nBye<end_of_turn>\n<start_of_turn>model\n",
        "<bos><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n",
    ),
    "glm-4": (
        "[gMASK]<sop><|system|>\nBe brief.<|user|>\nHi<|assistant|>\n"
        "Hello!<|user|>\nBye<|assistant|>\n",
        "[gMASK]<sop><|user|>\nHi<|assistant|>\n",
    ),
    "glm-z1": (
        "[gMASK]<sop><|system|>\nBe brief.<|user|>\nHi<|assistant|>\n"
        "Hello!<|user|>\nBye<|assistant|>\n<think>",
        "[gMASK]<sop><|user|>\nHi<|assistant|>\n<think>",
    ),
    "internlm": (
        "<s><|System|>:Be brief.\n<|User|>:Hi\n<|Bot|>:Hello!<eoa>\n<|User|>:Bye\n<|Bot|>:",
        "<s><|User|>:Hi\n<|Bot|>:",
    ),
    "internlm2": (
        "<s><|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n"
        "Hi<|im_end|>\n<|im_start|>assistant\nHello!<|im_end|>\n"
        "<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n",
        "<s><|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
    ),
    "llama-2": (
        "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nHi [/INST] Hello! </s><s>[INST] Bye [/INST]",
        "<s>[INST] Hi [/INST]",
    ),
    "llama-3": (
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n"
        "\n"
        "Be brief.<|eot_id|><|start_header_id|>user<|end_header_id|>\n"
        "\nHi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n"
        "\nHello!<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n"
        "Bye<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n"
        "\n",
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n"
        "Hi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    ),
    "llama-3.1": (
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n"
        "\nCutting Knowledge Date: December 2023\n"
        "Today Date: 26 Jul 2024\n\n"
        "Be brief.<|eot_id|><|start_header_id|>user<|end_header_id|>\n"
        "\nHi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n"
        "\nHello!<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n"
        "Bye<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n"
        "\n",
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n"
        "\nCutting Knowledge Date: December 2023\n"
        "Today Date: 26 Jul 2024\n\n"
        "<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n"
        "Hi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    ),
    "mistral": (
        "<s> [INST] Be brief.\n\nHi [/INST] Hello!</s> [INST] Bye [/INST]",
        "<s> [INST] Hi [/INST]",
    ),
    "mistral-v3": (
        "<s>[INST] Be brief.\n\nHi[/INST] Hello!</s>[INST] Bye[/INST]",
        "<s>[INST] Hi[/INST]",
    ),
    "openchat-3.5": (
        "<s>GPT4 Correct System: Be brief.<|end_of_turn|>GPT4 Correct User: "
        "Hi<|end_of_turn|>GPT4 Correct Assistant: Hello!<|end_of_turn|>GPT4 Correct "
        "User: Bye<|end_of_turn|>GPT4 Correct Assistant:",
        "<s>GPT4 Correct User: Hi<|end_of_turn|>GPT4 Correct Assistant:",
    ),
    "orca-2": (
        "<s><|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n"
        "Hi<|im_end|>\n<|im_start|>assistant\nHello!<|im_end|>\n"
        "<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant",
        "<s><|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant",
    ),
    "phi-3": (
        "<|system|>\nBe brief.<|end|>\n<|user|>\nHi<|end|>\n"
        "<|assistant|>\nHello!<|end|>\n<|user|>\nBye<|end|>\n"
        "<|assistant|>\n",
        "<|user|>\nHi<|end|>\n<|assistant|>\n",
    ),
    "qwen": (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n"
        "Hi<|im_end|>\n<|im_start|>assistant\nHello!<|im_end|>\n"
        "<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n",
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
    ),
    "qwen2.5": (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n"
        "Hi<|im_end|>\n<|im_start|>assistant\nHello!<|im_end|>\n"
        "<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n",
        "<|im_start|>system\n"
        "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
    ),
    "qwen3": (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n"
        "Hi<|im_end|>\n<|im_start|>assistant\nHello!<|im_end|>\n"
        "<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n",
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
    ),
    "qwq": (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n"
        "Hi<|im_end|>\n<|im_start|>assistant\nHello!<|im_end|>\n"
        "<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n"
        "<think>\n",
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n<think>\n",
    ),
    "vicuna": (
        "<s>Be brief. USER: Hi ASSISTANT: Hello!</s>USER: Bye ASSISTANT:",
        "<s>A chat between a curious user and an artificial intelligence assistant. The "
        "assistant gives helpful, detailed, and polite answers to the user's questions. "
        "USER: Hi ASSISTANT:",
    ),
    "yi-1.5": (
        "Be brief.<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\nHello!<|im_end|>\n<|im_start|>user\n"
        "Bye<|im_end|>\n<|im_start|>assistant\n",
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
    ),
    "zephyr": (
        "<|system|>\nBe brief.</s>\n<|user|>\nHi</s>\n<|assistant|>\n"
        "Hello!</s>\n<|user|>\nBye</s>\n<|assistant|>\n",
        "<|user|>\nHi</s>\n<|assistant|>\n",
    ),
}
