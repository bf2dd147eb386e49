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

HERE = pathlib.Path(__file__).resolve().parent
CLOCK = datetime.datetime(2024, 7, 26, 9, 5, 3)  # a Friday, with digits that need padding

USER = {"role": "user", "content": "What is 2+2?"}
ASSISTANT = {"role": "assistant", "content": "It is 4."}
SYSTEM = {"role": "system", "content": "You are a terse helper."}
DIALOGUES = {
    "one": [USER],
    "system": [SYSTEM, USER],
    "three": [USER, ASSISTANT, {"role": "user", "content": "And 3+3?"}],
    "all": [SYSTEM, USER, ASSISTANT, {"role": "user", "content": "And 3+3?"},
            {"role": "assistant", "content": "6"}],
    "spaces": [{"role": "system", "content": "  padded\n"},
               {"role": "user", "content": "\n\n two  words \t\n"},
               {"role": "assistant", "content": " \u00e9\U0001f600 \u4f60\u597d "},
               {"role": "user", "content": "{{ not }} {% a %} 'template' \"x\" <b>&amp;"}],
    "empty_content": [{"role": "user", "content": ""}],
    "none": [],
}
TOOLS = [{"type": "function", "function": {
    "name": "get_weather", "description": "Weather of a \"city\" <now>",
    "parameters": {"type": "object", "properties": {
        "city": {"type": "string"}, "days": {"type": "integer", "default": 3}},
        "required": ["city"]}}}]
TOOL_DIALOGUE = [
    USER, {"role": "assistant", "content": None, "tool_calls": [
        {"type": "function", "function": {"name": "get_weather",
                                          "arguments": {"city": "K\u00f6ln", "days": 2}}}]},
    {"role": "tool", "content": "{\"rain\": true}"}, {"role": "tool", "content": "sunny"},
    {"role": "user", "content": [{"type": "text", "text": "thanks"}, {"type": "image"}]}]

FORMATS = {
    "chatml": """\
{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}""",
    "smollm": """\
{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are a small helper.<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}""",
    "qwen": """\
{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0].role == 'system' %}
        {{- messages[0].content + '\\n\\n' }}
    {%- endif %}
    {{- "# Tools\\n\\n<tools>" }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\\n</tools><|im_end|>\\n" }}
{%- else %}
    {%- if messages and messages[0].role == 'system' %}
        {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endif %}
{%- set ns = namespace(tool_step=true, last_query=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.tool_step and message.role == "user" and message.content is string %}
        {%- set ns.tool_step = false %}
        {%- set ns.last_query = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.content is string %}
        {%- set content = message.content %}
    {%- elif message.content is iterable and message.content is not mapping %}
        {%- set content = message.content | selectattr('type', 'equalto', 'text') | map(attribute='text') | join('') %}
    {%- else %}
        {%- set content = '' %}
    {%- endif %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set reasoning = '' %}
        {%- if '</think>' in content %}
            {%- set reasoning = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {{- '<|im_start|>' + message.role + '\\n' }}
        {%- if loop.index0 > ns.last_query and reasoning %}
            {{- '<think>\\n' + reasoning.strip('\\n') + '\\n</think>\\n\\n' }}
        {%- endif %}
        {{- content }}
        {%- for tool_call in message.tool_calls or [] %}
            {%- if tool_call.function %}
                {%- set tool_call = tool_call.function %}
            {%- endif %}
            {{- '\\n<tool_call>\\n{"name": "' }}
            {{- tool_call.name }}
            {{- '", "arguments": ' }}
            {%- if tool_call.arguments is string %}
                {{- tool_call.arguments }}
            {%- else %}
                {{- tool_call.arguments | tojson }}
            {%- endif %}
            {{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if loop.first or (messages[loop.index0 - 1].role != "tool") %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\\n<tool_response>\\n' }}
        {{- content }}
        {{- '\\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}
            {{- '<|im_end|>\\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
""",
    "llama2": """\
{% if messages and messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}{% for message in loop_messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% if loop.index0 == 0 and system_message != false %}{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}{% else %}{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}""",
    "llama3": """\
{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}""",
    "llama32": """\
{{- bos_token }}
{%- if custom_tools is defined %}
    {%- set tools = custom_tools %}
{%- endif %}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}

{#- A system message, if any, is taken out first. #}
{%- if messages and messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}

{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{{- "Today Date: " + date_string + "\\n\\n" }}
{%- if tools is not none %}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\\n\\n" }}
    {%- endfor %}
{%- endif %}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}
            {{- raise_exception("This model only supports single tool-calls at once!") }}
        {%- endif %}
        {%- set tool_call = message.tool_calls[0].function %}
        {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}
        {{- '{"name": "' + tool_call.name + '", ' }}
        {{- '"parameters": ' }}
        {{- tool_call.arguments | tojson }}
        {{- "}" }}
        {{- "<|eot_id|>" }}
    {%- elif message.role == "tool" or message.role == "ipython" %}
        {{- "<|start_header_id|>ipython<|end_header_id|>\\n\\n" }}
        {%- if message.content is mapping or message.content is iterable %}
            {{- message.content | tojson }}
        {%- else %}
            {{- message.content }}
        {%- endif %}
        {{- "<|eot_id|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
""",
    "mistral": """\
{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- set ns = namespace() %}
{%- set ns.index = 0 %}
{%- for message in loop_messages %}
    {%- if not (message.role == "tool" or (message.tool_calls is defined and message.tool_calls is not none)) %}
        {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
            {{- raise_exception("After the optional system message, conversation roles must alternate user/assistant/user/assistant/...") }}
        {%- endif %}
        {%- set ns.index = ns.index + 1 %}
    {%- endif %}
{%- endfor %}

{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"]|trim + eos_token }}
    {%- else %}
        {{- raise_exception("Only user and assistant roles are supported, with the exception of an initial optional system message!") }}
    {%- endif %}
{%- endfor %}
""",
    "zephyr": """\
{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>\n' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>\n' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>\n'  + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}""",
    "gemma": """\
{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate') }}{% endif %}{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}""",
    "vicuna": """\
{%- for message in messages -%}
    {%- if message.role == "system" -%}{{ message.content ~ "\n\n" }}
    {%- elif message.role == "user" -%}{{ "USER: " ~ message.content ~ "\n" }}
    {%- else -%}{{ "ASSISTANT: " ~ message.content ~ eos_token ~ "\n" }}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ "ASSISTANT:" }}{%- endif -%}
""",
}

# name: template, or (template, extra variables). Messages are DIALOGUES["all"].
FEATURES = {
    # output, literals and printing
    "text_only": "plain text, { single } braces % # {",
    "empty": "",
    "comment": "a{# gone #}b{#- gone -#} c {# multi\nline #}\nd",
    "literals": "{{ 1 }} {{ -2 }} {{ 3.5 }} {{ 1.0 }} {{ true }} {{ false }} {{ none }} {{ True }} {{ False }} {{ None }}",
    "big_numbers": "{{ 1_000 }} {{ 123456789012 }} {{ 1e3 }} {{ 2.5e-3 }} {{ 0.1 + 0.2 }} {{ 1e16 }} {{ 1e22 }}",
    "string_escapes": r"""{{ 'a\nb\tc\\d\'e' }} {{ "q\"r's" }} {{ '\u00e9\x41' }}""",
    "raw_newline_in_string": "{{ 'a\nb' }}|",
    "adjacent_strings": "{{ 'a' 'b' \"c\" }}",
    "list_print": "{{ [1, 'two', 3.0, none, true, [], {}] }}",
    "dict_print": "{{ {'a': 1, 'b': 'x', 'c': [true], 2: none} }}",
    "repr_quotes": "{{ ['it\\'s', 'say \"hi\"', 'both\\'\"', 'nl\\n', 'tab\\t', '\\\\'] }}",
    "repr_unicode": ("{{ [x, y] }}", {"x": "é你😀", "y": "\u0001\u007f\u00a0\u200b"}),
    "tuple": "{{ (1, 2) }} {{ (1,) }} {{ () }} {{ (1, 2)[0] }}",
    "undefined_prints_empty": "[{{ nothing }}][{{ messages[0].nothing }}][{{ messages[0]['nothing'] }}]",
    "none_prints": "[{{ tools }}]",
    "no_autoescape": "{{ '<b>&\"' }} {{ messages[0].content ~ '<' }}",
    # operators
    "arithmetic": "{{ 7 + 2 }} {{ 7 - 2 }} {{ 7 * 2 }} {{ 7 / 2 }} {{ 7 // 2 }} {{ 7 % 2 }} {{ 2 ** 3 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 6 / 2 }}",
    "precedence": "{{ 1 + 2 * 3 }} {{ (1 + 2) * 3 }} {{ 10 - 3 - 2 }} {{ 'a' + 1 ~ 2 }} {{ 1 ~ 2 * 3 }} {{ not true or true }}",
    "power_quirks": "{{ -2 ** 2 }} {{ 2 ** 3 ** 2 }}",  # jinja, unlike Python: 4 and 64
    "filter_precedence": "{{ 'a' + ' b ' | trim + 'c' }}|{{ ('a' + ' b ') | trim }}|{{ -1 | abs }}",
    "concat": "{{ 'a' ~ 1 ~ true ~ none ~ 2.0 ~ [1] }} {{ 'a' + 'b' }} {{ [1] + [2] }}",
    "string_times": "{{ 'ab' * 3 }}|{{ '-' * 0 }}|{{ [0] * 2 }}",
    "percent_format": "{{ '%s is %d' % ('x', 3) }} {{ '%05.2f' | format(3.14159) }}",
    "comparison": "{{ 1 < 2 }} {{ 1 >= 2 }} {{ 1 == 1.0 }} {{ 'a' < 'b' }} {{ 'a' == 'a' }} {{ 1 != '1' }} {{ 1 < 2 < 3 }} {{ none == none }} {{ [1, 2] == [1, 2] }}",
    "logic": "{{ true and false }} {{ true or false }} {{ not true }} {{ '' or 'dflt' }} {{ 'a' and 'b' }} {{ 0 or none or [] }} {{ not '' }}",
    "in": "{{ 'a' in 'abc' }} {{ 'x' not in 'abc' }} {{ 1 in [1, 2] }} {{ 'role' in messages[0] }} {{ 'k' in {'k': 1} }} {{ not 'a' in 'b' }} {{ 3 not in (1, 2) }}",
    "inline_if": "{{ 'y' if true else 'n' }} {{ 'y' if false else 'n' }} [{{ 'y' if false }}] {{ 'a' if 0 else 'b' if 1 else 'c' }} {{ ('x' if messages else 'y') ~ 'z' }}",
    "truthiness": "{% for v in [0, 1, 0.0, '', 'a', [], [0], {}, {'a': 1}, none, true] %}{{ 'T' if v else 'F' }}{% endfor %}",
    # access
    "subscripts": "{{ messages[0]['role'] }} {{ messages[0].role }} {{ messages[-1].content }} {{ messages[1]['content'][0] }} {{ messages[0]['con' + 'tent'] }}",
    "out_of_range": "[{{ messages[99] }}] {{ messages[99] is defined }}",
    "slices": "{{ 'abcdef'[1:3] }} {{ 'abcdef'[:2] }} {{ 'abcdef'[4:] }} {{ 'abcdef'[-2:] }} {{ 'abcdef'[:-2] }} {{ 'abcdef'[::2] }} {{ 'abcdef'[::-1] }} {{ 'abcdef'[10:] }}| {{ [1,2,3,4][1:-1] }} {{ [1,2,3][::-1] }} {{ 'abc'[:] }}",
    "slice_unicode": ("{{ s[1:3] }} {{ s | length }} {{ s[0] }} {{ s[::-1] }}", {"s": "é你😀z"}),
    "message_slices": "{% for m in messages[1:] %}{{ m.role }},{% endfor %}{% for m in messages[::-1] %}{{ m.role }};{% endfor %}{{ messages[-1]['role'] }}",
    "nested_access": ("{{ a.b[0].c }} {{ a['b'][1]['c'] }} {{ a.b[-1].c.d }}", {"a": {"b": [{"c": 1}, {"c": {"d": 2}}]}}),
    "dict_method_names": ("{{ d['items'] }} {{ d.get('items') }} {{ d.x }}", {"d": {"items": 5, "x": 1}}),
    "dict_literal": "{% set d = {'a': 1, 'b': {'c': 2}} %}{{ d.a }} {{ d['b'].c }} {{ d | length }}",
    # if
    "if_elif_else": "{% for m in messages %}{% if m.role == 'system' %}S{% elif m.role == 'user' %}U{% elif m.role == 'tool' %}T{% else %}A{% endif %}{% endfor %}",
    "if_no_branch": "[{% if false %}x{% endif %}]",
    "if_nested": "{% if true %}{% if false %}a{% else %}b{% endif %}c{% endif %}",
    "if_undefined": "{% if nothing %}a{% else %}b{% endif %}{% if not nothing %}c{% endif %}",
    # for
    "for_loop_vars": "{% for m in messages %}{{ loop.index }}/{{ loop.index0 }}/{{ loop.revindex }}/{{ loop.revindex0 }}/{{ loop.first }}/{{ loop.last }}/{{ loop.length }} {% endfor %}",
    "for_neighbours": "{% for m in messages %}{{ loop.previtem.role if loop.previtem is defined else '-' }}<{{ m.role }}>{{ loop.nextitem.role if loop.nextitem is defined else '-' }} {% endfor %}",
    "for_else": "{% for x in [] %}x{% else %}none{% endfor %} {% for x in [1] %}x{% else %}none{% endfor %}",
    "for_if": "{% for m in messages if m.role == 'user' %}{{ loop.index }}{{ m.content }}{{ loop.last }}{% endfor %}",
    "for_if_else": "{% for m in messages if m.role == 'tool' %}x{% else %}no tool{% endfor %}",
    "for_unpack": "{% for k, v in {'a': 1, 'b': 2}.items() %}{{ k }}={{ v }};{% endfor %}{% for a, b in [[1, 2], [3, 4]] %}{{ a + b }},{% endfor %}",
    "for_nested": "{% for a in [1, 2] %}{% for b in ['x', 'y'] %}{{ a }}{{ b }}{{ loop.index }} {% endfor %}{{ loop.index }};{% endfor %}",
    "for_outer_loop": "{% for a in [1, 2] %}{% set outer = loop %}{% for b in [1, 2] %}{{ outer.index }}{{ loop.index }} {% endfor %}{% endfor %}",
    "for_string": "{% for c in 'h\u00e9y' %}{{ c }}.{% endfor %}",
    "for_dict": "{% for k in {'b': 1, 'a': 2} %}{{ k }}{% endfor %}",
    "for_range": "{% for i in range(3) %}{{ i }}{% endfor %} {% for i in range(2, 5) %}{{ i }}{% endfor %} {% for i in range(5, 0, -2) %}{{ i }}{% endfor %} {{ range(3) | list }}",
    "for_scope": "{% set x = 1 %}{% for i in [1, 2] %}{% set x = x + 1 %}{{ x }}{% endfor %}{{ x }}",
    "for_hides_name": "{% set m = 'outer' %}{% for m in [1] %}{{ m }}{% endfor %}{{ m }}",
    "for_undefined": "[{% for x in nothing %}x{% else %}empty{% endfor %}]",
    "loop_cycle": "{% for i in range(4) %}{{ loop.cycle('odd', 'even') }} {% endfor %}",
    "loop_changed": "{% for m in [1, 1, 2, 2, 3] %}{% if loop.changed(m) %}{{ m }}{% endif %}{% endfor %}",
    "break_continue": "{% for i in range(6) %}{% if i == 1 %}{% continue %}{% endif %}{% if i == 4 %}{% break %}{% endif %}{{ i }}{% endfor %}",
    # set, namespace
    "set_forms": "{% set a = 1 %}{% set b, c = 2, 3 %}{% set d = [a, b] + [c] %}{{ a }}{{ b }}{{ c }}{{ d }}",
    "set_block": "{% set text %}Hello {{ messages[1].content }}{% if true %}!{% endif %}\n{% endset %}[{{ text }}][{{ text | upper }}]",
    "set_block_filter": "{% set text | trim | upper %}\n  padded {{ 'x' }} \n{% endset %}[{{ text }}]",
    "set_in_if": "{% if true %}{% set x = 'in' %}{% endif %}{{ x }}",
    "namespace": "{% set ns = namespace(found=false, n=0) %}{% for m in messages %}{% if m.role == 'assistant' %}{% set ns.found = true %}{% set ns.n = ns.n + 1 %}{% endif %}{% endfor %}{{ ns.found }} {{ ns.n }}",
    "namespace_empty": "{% set ns = namespace() %}{% set ns.a = 'x' %}{{ ns.a }}[{{ ns.b }}]{{ ns.b is defined }}",
    "namespace_list": "{% set ns = namespace(l=[]) %}{% for i in [1, 2] %}{% set ns.l = ns.l + [i * 2] %}{% endfor %}{{ ns.l }}",
    # macros
    "macro": "{% macro hi(name, mark='!') %}Hi {{ name }}{{ mark }}{% endmacro %}{{ hi('A') }} {{ hi('B', '?') }} {{ hi(name='C', mark='.') }} {{ hi('D', mark=';') }}",
    "macro_missing_argument": "{% macro m(a, b) %}[{{ a }}|{{ b }}|{{ b is defined }}]{% endmacro %}{{ m(1) }}",
    "macro_default_expression": "{% macro m(a, b=[1, 2], c=none) %}{{ a }}{{ b | length }}{{ c is none }}{% endmacro %}{{ m('x') }}",
    "macro_recursive": "{% macro f(n) %}{{ n }}{% if n > 0 %},{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(3) }}",
    "macro_scope": "{% set g = 'global' %}{% macro m() %}{% set l = 'local' %}{{ l }}{{ g }}{% endmacro %}{{ m() }}[{{ l }}]",
    "macro_calls_macro": "{% macro a(x) %}<{{ x }}>{% endmacro %}{% macro b(x) %}{{ a(x) }}{{ a(x | upper) }}{% endmacro %}{{ b('q') }}",
    "macro_whitespace": "{%- macro m(x) -%}\n  {{ x }}\n{%- endmacro -%}\n[{{ m('y') }}]",
    "macro_filtered": "{% macro m() %}  text  {% endmacro %}[{{ m() | trim }}]{{ m() | length }}",
    # filters
    "trim": "[{{ '  a b \\n' | trim }}] [{{ 'xxaxx' | trim('x') }}] [{{ '\\t\\u00a0a\\u3000' | trim }}]",
    "case_filters": "{{ 'aBc d\u00e9' | upper }} {{ 'ABC D\u00c9' | lower }} {{ 'hELLO wORLD' | capitalize }} {{ \"hello wORLD it's foo-bar\" | title }}",
    "length": "{{ 'abc' | length }} {{ [1, 2] | length }} {{ {'a': 1} | length }} {{ messages | length }} {{ '' | length }} {{ messages | count }}",
    "join": "{{ [1, 2, 3] | join }} {{ [1, 2, 3] | join(', ') }} {{ ['a'] | join('-') }} [{{ [] | join(',') }}] {{ messages | join(',', attribute='role') }} {{ 'abc' | join('.') }}",
    "default": "{{ nothing | default('d') }} {{ none | default('d') }} {{ '' | default('d') }}| {{ '' | default('d', true) }} {{ none | default('d', true) }} {{ 0 | default(5, boolean=true) }} {{ nothing | d('e') }} {{ messages[0].nothing | default('f') }} [{{ nothing | default }}]",
    "replace": "{{ 'aXbXc' | replace('X', '-') }} {{ 'aaa' | replace('a', 'b', 2) }} {{ 'abc' | replace('', '.') }}",
    "tojson": ("{{ v | tojson }}", {"v": {"b": 1, "a": [1.0, 2.5, True, None, "é\"\\\n\t\u0001/<>&'😀"], "e": {}, "l": []}}),
    "tojson_scalars": "{{ 'x' | tojson }} {{ 1 | tojson }} {{ 1.0 | tojson }} {{ none | tojson }} {{ true | tojson }} {{ [] | tojson }} {{ '\\u2028' | tojson }}",
    "tojson_indent": ("{{ v | tojson(indent=2) }}\n{{ v | tojson(indent=4) }}", {"v": {"b": [1, {"c": []}], "a": {}}}),
    "tojson_options": ("{{ v | tojson(ensure_ascii=true) }} {{ v | tojson(sort_keys=true) }} {{ v | tojson(separators=(',', ':')) }}", {"v": {"é": 1, "a": [1, "😀"]}}),
    "first_last": "{{ [1, 2, 3] | first }} {{ [1, 2, 3] | last }} {{ 'abc' | first }} {{ 'abc' | last }} {{ (messages | first).role }} {{ (messages | last).role }} [{{ [] | first }}]",
    "list_filter": "{{ 'abc' | list }} {{ {'a': 1, 'b': 2} | list }} {{ (1, 2) | list }}",
    "items_filter": "{% for k, v in {'x': 1, 'y': [2]} | items %}{{ k }}:{{ v }} {% endfor %}{{ {'a': 1} | items | list }} [{{ nothing | items | list }}]",
    "map": "{{ messages | map(attribute='role') | join(',') }} {{ ['a', 'b'] | map('upper') | list }} {{ [' a ', 'b '] | map('trim') | join('|') }} {{ [{'a': 1}, {}] | map(attribute='a', default='none') | list }} {{ ['x1'] | map('replace', '1', '2') | first }}",
    "map_nested_attribute": ("{{ l | map(attribute='a.b') | list }} {{ p | map(attribute=1) | list }}", {"l": [{"a": {"b": 1}}, {"a": {"b": 2}}], "p": [[1, 2], [3, 4]]}),
    "selectattr": "{{ messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | join(';') }} {{ messages | selectattr('role', '==', 'user') | list | length }} {{ messages | selectattr('tool_calls') | list }} {{ messages | selectattr('content', 'defined') | list | length }} {{ messages | selectattr('role', 'in', ['user', 'system']) | list | length }}",
    "rejectattr": "{{ messages | rejectattr('role', 'equalto', 'user') | map(attribute='role') | join(',') }} {{ (messages | rejectattr('role', 'eq', 'system') | list)[0].role }} {{ messages | rejectattr('nothing') | list | length }}",
    "select_reject": "{{ [1, 2, 3, 4] | select('odd') | list }} {{ [1, 2, 3, 4] | reject('odd') | list }} {{ [0, 1, '', 'a'] | select | list }} {{ [1, 2] | reject('equalto', 1) | list }} {{ [1, none] | select('none') | list }}",
    "int_float_string": "{{ '42' | int + 1 }} {{ 'x' | int }} {{ 'x' | int(7) }} {{ 3.9 | int }} {{ '3.7' | int }} {{ '2.5' | float }} {{ 'x' | float }} {{ 5 | string + 'a' }} {{ true | string }} {{ none | string }} {{ [1] | string }} {{ true | int }}",
    "abs_round": "{{ -3 | abs }} {{ 2.567 | round(2) }} {{ 2.5 | round }} {{ 3.2 | round(0, 'ceil') }} {{ 3.8 | round(method='floor') | int }}",
    "min_max_sum": "{{ [3, 1, 2] | min }} {{ [3, 1, 2] | max }} {{ [3, 1, 2] | sum }} {{ [{'n': 1}, {'n': 4}] | sum(attribute='n') }} [{{ [] | max }}]",
    "sort_reverse_unique": "{{ [3, 1, 2] | sort }} {{ [3, 1, 2] | sort(reverse=true) }} {{ ['b', 'A', 'c'] | sort }} {{ ['b', 'A', 'c'] | sort(case_sensitive=true) }} {{ messages | sort(attribute='role') | map(attribute='role') | list }} {{ [1, 2] | reverse | list }} {{ 'abc' | reverse }} {{ [1, 2, 1] | unique | list }}",
    "dictsort": "{{ {'b': 1, 'a': 2} | dictsort }} {% for k, v in {'b': 1, 'a': 2} | dictsort %}{{ k }}{{ v }}{% endfor %}",
    "safe_escape": "{{ '<b>' | safe }} {{ '<b>&\"\\'' | escape }} {{ '<' | e }}",
    "indent": "{{ 'a\\nb\\n\\nc' | indent }}|{{ 'a\\nb' | indent(2) }}|{{ 'a\\nb' | indent(2, true) }}|{{ 'a\\n\\nb' | indent(2, first=true, blank=true) }}|{{ 'a\\nb' | indent('> ') }}",
    "slice_batch": "{{ [1, 2, 3, 4, 5] | batch(2) | list }} {{ [1, 2, 3, 4, 5] | slice(2) | list }}",
    "groupby": "{% for g in messages | groupby('role') %}{{ g.grouper }}={{ g.list | length }} {% endfor %}",
    "wordcount_truncate": "{{ 'a bc d' | wordcount }} {{ 'a long sentence here' | truncate(10) }} {{ 'short' | center(9) }}|",
    "attr_filter": "{{ messages | map(attribute='role') | first | attr('nothing') is defined }}",
    "filter_chain": "{{ '  Hello World ' | trim | lower | replace('o', '0') | upper }} {{ messages | map(attribute='content') | map('length') | list }}",
    "filter_on_call": "{{ messages[0].content.split() | join('+') | upper }}",
    # tests
    "test_defined": "{{ messages is defined }} {{ nothing is defined }} {{ nothing is not defined }} {{ nothing is undefined }} {{ messages[0].role is defined }} {{ messages[0].nothing is defined }} {{ tools is defined }}",
    "test_none": "{{ none is none }} {{ tools is none }} {{ 0 is none }} {{ nothing is none }} {{ '' is not none }}",
    "test_types": "{% for v in ['s', 1, 1.5, true, none, [1], {'a': 1}] %}{{ v is string }}{{ v is number }}{{ v is integer }}{{ v is float }}{{ v is boolean }}{{ v is mapping }}{{ v is iterable }}{{ v is sequence }}\n{% endfor %}",
    "test_truth": "{{ true is true }} {{ 1 is true }} {{ false is false }} {{ 0 is false }} {{ none is false }}",
    "test_numbers": "{{ 3 is odd }} {{ 3 is even }} {{ 9 is divisibleby 3 }} {{ 9 is divisibleby(2) }}",
    "test_equalto": "{{ 1 is equalto 1 }} {{ 'a' is eq 'a' }} {{ 1 is ne 2 }} {{ 2 is gt 1 }} {{ 2 is lt 1 }} {{ 2 is ge 2 }} {{ 2 is le 1 }} {{ 2 is sameas 2 }}",
    "test_in": "{{ 1 is in [1, 2] }} {{ 'a' is in 'abc' }} {{ 3 is not in [1] }} {{ 'role' is in messages[0] }}",
    "test_case": "{{ 'abc' is lower }} {{ 'ABC' is upper }} {{ 'aBc' is lower }}",
    "test_callable": "{{ raise_exception is callable }} {{ 'x' is callable }} {{ raise_exception is defined }}",
    "test_filter_mix": "{{ messages | length is even }} {{ (messages | length) is odd }} {{ 'a ' | trim is equalto 'a' }} {{ not messages is string }} {{ messages[0].content is string and messages[0].content | length > 3 }}",
    # methods
    "strip": "[{{ '  a ' .strip() }}] [{{ '  a '.lstrip() }}] [{{ '  a '.rstrip() }}] [{{ 'xyaxy'.strip('xy') }}] [{{ '\\n\\na\\n'.strip('\\n') }}] [{{ 'aab'.lstrip('a') }}] [{{ 'baa'.rstrip('a') }}]",
    "split": "{{ 'a,b,,c'.split(',') }} {{ ' a  b \\n c '.split() }} {{ 'a,b,c'.split(',', 1) }} {{ 'a,b,c'.rsplit(',', 1) }} {{ 'a'.split(',') }} {{ ''.split(',') }} {{ ''.split() }} {{ 'a--b'.split('--')[-1] }} {{ 'a b  c'.split(' ') }} {{ 'a b c'.split(None, 1) }} {{ 'a b c'.split(maxsplit=1) }}",
    "splitlines": "{{ 'a\\nb\\r\\nc\\n'.splitlines() }}",
    "partition": "{{ 'k=v=w'.partition('=') }} {{ 'k=v=w'.rpartition('=') }}",
    "starts_ends": "{{ 'hello'.startswith('he') }} {{ 'hello'.endswith('lo') }} {{ 'hello'.startswith('x') }} {{ 'hello'.startswith(('x', 'h')) }} {{ 'hello'.endswith('') }}",
    "case_methods": "{{ 'aB\u00e9'.upper() }} {{ 'AB\u00c9'.lower() }} {{ 'hello wORLD'.title() }} {{ 'hELLO'.capitalize() }} {{ \"it's\".title() }}",
    "replace_method": "{{ 'aXbX'.replace('X', '-') }} {{ 'aaa'.replace('a', 'b', 1) }} {{ 'abc'.replace('b', '') }}",
    "find_count": "{{ 'hello'.find('l') }} {{ 'hello'.find('z') }} {{ 'hello'.rfind('l') }} {{ 'hello'.count('l') }} {{ 'hello'.index('e') }}",
    "join_method": "{{ ','.join(['a', 'b']) }} {{ ''.join(['x', 'y']) }}",
    "is_methods": "{{ '12'.isdigit() }} {{ 'ab'.isalpha() }} {{ 'a1'.isalnum() }} {{ ' '.isspace() }} {{ 'AB'.isupper() }} {{ 'ab'.islower() }} {{ '1a'.isdigit() }}",
    "format_method": "{{ '{} {}'.format('a', 1) }} {{ '{1}{0}'.format('a', 'b') }} {{ '{x}!'.format(x=3) }}",
    "removeprefix": "{{ 'foobar'.removeprefix('foo') }} {{ 'foobar'.removesuffix('bar') }} {{ 'foobar'.removeprefix('x') }} {{ '7'.zfill(3) }} [{{ 'a'.ljust(3) }}]",
    "dict_methods": ("{% for k, v in d.items() %}{{ k }}={{ v }},{% endfor %} {{ d.keys() | list }} {{ d.values() | list }} {{ d.get('b') }} {{ d.get('z') }} {{ d.get('z', 'dflt') }} {{ d.get('z', {}).get('y', 1) }}", {"d": {"b": 1, "a": [2]}}),
    "dict_function": "{{ dict(a=1, b='x') }} {{ dict(a=1).a }}",
    "list_methods": "{{ [1, 2, 1].count(1) }} {{ [1, 2].index(2) }}",
    "method_chain": "{{ ' a-B '.strip().lower().replace('-', '_').split('_')[0] }}",
    "method_on_literal": "{{ 'a b'.split(' ')[1].upper() ~ 'x' }}",
    # whitespace
    "trim_blocks": "a\n{% if true %}\nb\n{% endif %}\nc\n",
    "lstrip_blocks": "a\n   {% if true %}\n   b\n   {% endif %}\n   c {% if true %}\n d{% endif %}\n",
    "lstrip_comment": "a\n   {# note #}\nb\n  {# x #} c\n",
    "no_trim_after_output": "{{ 'a' }}\n{{ 'b' }}\n\nc\n",
    "minus": "a  \n {%- if true -%} \n b \n {%- endif -%}  \n c",
    "minus_output": "a \n {{- 'x' -}} \n b  {{ 'y' -}}  \n\n c \n\n {{- 'z' }} d",
    "minus_comment": "a \n {#- gone -#} \n b",
    "plus": "a\n  {%+ if true +%}\n b\n  {%+ endif +%}\n c",
    "minus_for": "{%- for m in messages %}\n  {{- m.role }}\n  {%- if not loop.last %},{% endif %}\n{%- endfor %}\n.",
    "indented_block": "{% for m in messages %}\n    {% if m.role == 'user' %}\n        [{{ m.content }}]\n    {% endif %}\n{% endfor %}\nend",
    "trailing_newline": "a\n",
    "trailing_newlines": "a\n\n\n",
    "trailing_block_newline": "{% if true %}a{% endif %}\n",
    "crlf": "a\r\n{% if true %}\r\nb\r\n{% endif %}\r\nc\r\n",
    "tabs_before_block": "\t{% if true %}\n\tx\n\t{% endif %}\ny",
    "text_before_block": "x {% if true %}\ny {% endif %}\nz",
    "two_blocks_one_line": "  {% if true %}  {% if true %}\n a{% endif %}{% endif %}\n",
    "multi_line_tag": "{%\n  if\n  true\n%}a{%\nendif %}{{\n 'x'\n ~ 'y'\n}}",
    "braces_in_strings": "{{ '}}' }}{{ '%}' }}{{ '{{' }}{{ '#}' }}{{ {'a': {'b': 1}}['a']['b'] }}",
    "raw": "{% raw %}{{ x }} {% if %}{% endraw %}|",
    # globals
    "strftime_now": "{{ strftime_now('%Y-%m-%d') }} {{ strftime_now('%d %b %Y') }} {{ strftime_now('%A, %B %d, %Y') }} {{ strftime_now('%H:%M:%S') }} {{ strftime_now('%a %j %y %I %p %m %%') }}",
    "generation_flag": "{{ add_generation_prompt }} {{ bos_token }} {{ eos_token }}",
    "extra_flag": ("{% if enable_thinking is defined and not enable_thinking %}off{% else %}on{% endif %}", {"enable_thinking": False}),
    "raise_not_reached": "{% if false %}{{ raise_exception('x') }}{% endif %}ok",
    "raise_in_macro_unused": "{% macro m() %}{{ raise_exception('x') }}{% endmacro %}ok",
    "joiner_cycler": "{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}{{ c.next() }}{% set j = joiner(',') %}{{ j() }}x{{ j() }}y",
    "generation_block": "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}{% endif %}{% endfor %}",
    "call_block": "{% macro box() %}<{{ caller() }}>{% endmacro %}{% call box() %}in{% endcall %}",
    "filter_block": "{% filter upper %}abc{% endfilter %}",
    "with_block": "{% with a = 1, b = 2 %}{{ a + b }}{% endwith %}[{{ a }}]",
    "recursive_loop": "{% for x in [[1, [2]], [3]] recursive %}{% if x is iterable %}({{ loop(x) }}){% else %}{{ x }}{% endif %}{% endfor %}",
    "content_parts": ("{% for m in chat %}{% if m.content is string %}{{ m.content }}{% else %}{% for p in m.content %}{% if p.type == 'text' %}{{ p.text }}{% elif p['type'] == 'image' %}<image>{% endif %}{% endfor %}{% endif %};{% endfor %}",
                      {"chat": TOOL_DIALOGUE[3:]}),
}
OPTIONAL = {
    "loop_cycle", "loop_changed", "percent_format", "slice_batch", "groupby", "wordcount_truncate",
    "attr_filter", "splitlines", "partition", "find_count", "join_method", "is_methods",
    "format_method", "removeprefix", "list_methods", "raw", "joiner_cycler", "generation_block",
    "call_block", "filter_block", "with_block", "recursive_loop", "abs_round", "dictsort",
    "power_quirks", "string_times", "test_case", "tojson_options", "plus", "big_numbers", "crlf",
    "safe_escape", "dict_method_names"}

# name: (template, word the error must hold). Messages are DIALOGUES["all"].
ERRORS = {
    "unknown_filter": ("{{ 'a' | frobnicate }}", "frobnicate"),
    "unknown_filter_in_map": ("{{ ['a'] | map('frobnicate') | list }}", "frobnicate"),
    "unknown_test": ("{{ 1 is frobnicated }}", "frobnicated"),
    "unknown_test_in_selectattr": ("{{ messages | selectattr('role', 'frobnicated') | list }}", "frobnicated"),
    "unknown_tag": ("{% frobnicate x %}", "frobnicate"),
    "include": ("{% include 'other' %}", "include"),
    "import": ("{% import 'other' as o %}", "import"),
    "from_import": ("{% from 'other' import x %}", "import"),
    "extends": ("{% extends 'other' %}", "extends"),
    "undefined_function": ("{{ frobnicate('x') }}", "frobnicate"),
    "undefined_method": ("{{ 'x'.frobnicate() }}", "frobnicate"),
    "undefined_attribute_of_undefined": ("{{ nothing.role }}", "nothing"),
    "undefined_subscript_of_undefined": ("{{ nothing['role'] }}", "nothing"),
    "undefined_in_arithmetic": ("{{ nothing + 'x' }}", "nothing"),
    "undefined_message_key": ("{{ messages[0].nothing + 'x' }}", "nothing"),
    "none_plus_string": ("{{ none + 'x' }}", ""),
    "string_plus_int": ("{{ 'a' + 1 }}", ""),
    "not_callable": ("{{ 'a'('b') }}", ""),
    "divide_by_zero": ("{{ 1 / 0 }}", ""),
    "raise_exception": ("{{ raise_exception('roles must alternate: ' ~ messages[0].role) }}", "roles must alternate: system"),
    "raise_in_loop": ("{% for m in messages %}{% if loop.index0 == 2 %}{{ raise_exception('third') }}{% endif %}{% endfor %}", "third"),
    "missing_endfor": ("{% for m in messages %}x", "for"),
    "missing_endif": ("{% if true %}x", "if"),
    "missing_endmacro": ("{% macro m() %}x", "macro"),
    "stray_endif": ("x{% endif %}", "endif"),
    "stray_else": ("x{% else %}", "else"),
    "wrong_end": ("{% for m in messages %}{% endif %}", "endif"),
    "unclosed_output": ("a {{ 'x' ", ""),
    "unclosed_block": ("a {% if true ", ""),
    "unclosed_comment": ("a {# note ", "comment"),
    "unclosed_string": ("{{ 'abc }}", ""),
    "unclosed_paren": ("{{ (1 + 2 }}", ""),
    "empty_output": ("{{ }}", ""),
    "two_operands": ("{{ 1 2 }}", ""),
    "dangling_operator": ("{{ 1 + }}", ""),
    "bad_character": ("{{ a ? b }}", ""),
    "for_without_in": ("{% for m messages %}{% endfor %}", ""),
    "for_over_int": ("{% for x in 5 %}{% endfor %}", ""),
    "assign_to_attribute": ("{% set messages.role = 1 %}", ""),
    "mutation": ("{% set _ = messages.append(1) %}", "append"),
    "dunder": ("{{ ''.__class__.__mro__ }}", "__class__"),
    "huge_range": ("{% for i in range(100000000) %}x{% endfor %}", "ange"),
    "too_many_macro_arguments": ("{% macro m(a) %}{% endmacro %}{{ m(1, 2) }}", "m"),
}


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
