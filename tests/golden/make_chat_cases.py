#!/usr/bin/env python3
"""Writes what chat templates give in transformers: jinja2 as transformers sets it up (sandbox,
trim_blocks, lstrip_blocks, its tojson, raise_exception, strftime_now and loop controls).

chat/formats.json   whole templates, written for this test in the style of the usual ones
chat/features.json  one feature of the language each; `optional` ones are rare in chat templates
chat/errors.json    templates that must fail

Each file: {"cases": [case, ...]}, every file ASCII with JSON escapes. A case:

  name, template
  messages, add_generation_prompt, bos_token, eos_token
  extra             further variables (absent: none). `tools` and `documents` are null unless here
  clock             "YYYY-MM-DDTHH:MM:SS" that strftime_now sees
  expected          the text; or
  error_contains    for a case that must fail: a word the message must hold ("" = any), and
  error_jinja       jinja2's own message, for information
  optional          true: an engine for chat templates may refuse it (with an error that names it)

Objects keep their key order (read them with an ordered JSON type: tojson and items() show it).

Rerun, in the venv of make_tiny_models.py (jinja2 3.1.6, transformers 5.23.0):  python make_chat_cases.py
"""

import datetime
import json
import pathlib

from jinja2 import TemplateError
from transformers.utils.chat_template_utils import _compile_jinja_template

from chat_features import FEATURES, OPTIONAL, ERRORS
from chat_formats import USER, DIALOGUES, TOOLS, TOOL_DIALOGUE, FORMATS

HERE = pathlib.Path(__file__).resolve().parent
CLOCK = datetime.datetime(2024, 7, 26, 9, 5, 3)  # a Friday, with digits that need padding


def render(case):
    template = _compile_jinja_template(case["template"])
    return template.render(
        **{"tools": None, "documents": None, **case.get("extra", {})},
        messages=case["messages"], add_generation_prompt=case["add_generation_prompt"],
        bos_token=case["bos_token"], eos_token=case["eos_token"],
        strftime_now=lambda form: CLOCK.strftime(form))


def make_case(name, template, messages, prompt=False, extra=None):
    case = {"name": name, "template": template, "messages": messages,
            "add_generation_prompt": prompt, "bos_token": "<s>", "eos_token": "</s>",
            "clock": CLOCK.isoformat()}
    if extra:
        case["extra"] = extra
    return case


def format_cases():
    for name, template in FORMATS.items():
        for dialogue, messages in DIALOGUES.items():
            for prompt in (False, True):
                yield make_case(f"{name}_{dialogue}" + ("_prompt" if prompt else ""), template,
                                messages, prompt)
        twice = [USER, USER]
        yield make_case(f"{name}_user_twice", template, twice, True)
        yield make_case(f"{name}_unknown_role", template, [{"role": "critic", "content": "x"}])
    for name in ("qwen", "llama32"):
        yield make_case(f"{name}_tools", FORMATS[name], TOOL_DIALOGUE[:4], True, {"tools": TOOLS})
    yield make_case("qwen_parts", FORMATS["qwen"], TOOL_DIALOGUE, True)
    yield make_case("qwen_no_thinking", FORMATS["qwen"], DIALOGUES["one"], True,
                    {"enable_thinking": False})
    thought = [USER, {"role": "assistant", "content": "<think>\nhm\n</think>\n\nIt is 4."}]
    yield make_case("qwen_thought", FORMATS["qwen"], thought)
    yield make_case("qwen_thought_earlier", FORMATS["qwen"], [*thought, USER], True)
    yield make_case("llama32_date", FORMATS["llama32"], DIALOGUES["system"], True,
                    {"date_string": "01 Jan 2000"})


def feature_cases():
    for name, feature in FEATURES.items():
        template, extra = feature if isinstance(feature, tuple) else (feature, None)
        case = make_case(name, template, DIALOGUES["all"], True, extra)
        if name in OPTIONAL:
            case["optional"] = True
        yield case


def with_result(case):
    """Adds `expected`, or what jinja2 says where the template refuses the messages."""
    try:
        case["expected"] = render(case)
    except Exception as error:
        # raise_exception's own words must come through; jinja2's other messages need not
        case["error_contains"] = str(error) if type(error) is TemplateError else ""
        case["error_jinja"] = f"{type(error).__name__}: {error}"
    return case


def write(file, cases):
    path = HERE / "chat" / file
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(json.dumps(case) for case in cases)
    path.write_text('{"cases": [\n' + lines + "\n]}\n", encoding="utf-8")
    print(f"{path.name}: {len(cases)} cases, {path.stat().st_size} bytes")


def main():
    write("formats.json", [with_result(case) for case in format_cases()])
    features = [with_result(case) for case in feature_cases()]
    for case in features:
        if "expected" not in case:
            raise SystemExit(f"{case['name']}: {case['error_jinja']}")
    write("features.json", features)
    errors = []
    for name, (template, word) in ERRORS.items():
        case = make_case(name, template, DIALOGUES["all"], True)
        try:
            text = render(case)
        except Exception as error:
            case["error_contains"] = word
            case["error_jinja"] = f"{type(error).__name__}: {error}"
            errors.append(case)
        else:
            raise SystemExit(f"{name}: no error, but {text!r}")
    write("errors.json", errors)


if __name__ == "__main__":
    main()
