#!/usr/bin/env python3
"""Each check here must pass what is right and find what is wrong."""

import pathlib
import tempfile
import unittest

import check_docs
import check_layering
import check_readme
import check_sizes

CMAKE = """
mkv_module(base  Threads::Threads)
mkv_module(store mkv_base)
mkv_module(ops   mkv_base hwy::hwy)
mkv_module(text  mkv_store)
mkv_module(nest  mkv_store mkv_ops)
"""


class TreeTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = pathlib.Path(folder.name)

    def write(self, name, text):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


class LayeringTest(TreeTest):
    def found(self, name, text, cmake=CMAKE):
        self.write("CMakeLists.txt", cmake)
        self.write(name, text)
        return check_layering.problems(self.root)

    def test_downward_includes_pass(self):
        self.assertEqual(self.found("src/nest/a.cc", '#include "nest/a.h"\n#include "base/b.h"\n'), [])
        self.assertEqual(self.found("src/cli/a.cc", '#include <iostream>\n#include "nest/a.h"\n'), [])

    def test_upward_include_is_found(self):
        self.assertIn("store may not include nest/a.h", self.found("src/store/a.cc", '#include "nest/a.h"')[0])

    def test_sibling_include_is_found(self):
        self.assertIn("text may not include ops/a.h", self.found("src/text/a.h", ' # include "ops/a.h"')[0])

    def test_include_without_folder_is_found(self):
        self.assertIn("text may not include a.h", self.found("src/text/a.cc", '#include "a.h"')[0])

    def test_package_passes(self):
        self.assertEqual(self.found("src/ops/a.cc", '#include "hwy/highway.h"'), [])

    def test_unknown_folder_is_found(self):
        self.assertIn("misc", self.found("src/misc/a.cc", "")[0])

    def test_upward_module_is_found(self):
        self.assertIn("store may not use nest",
                      self.found("src/base/a.cc", "", "mkv_module(store mkv_base mkv_nest)")[0])

    def test_printing_is_found(self):
        for text in ["#include <iostream>", 'void f() { std::printf("x"); }', "fputs(a, stderr);"]:
            self.assertIn("only cli/ prints", self.found("src/ops/a.cc", text)[0])
        self.assertEqual(self.found("src/ops/a.cc", "snprintf(buffer, size, x);"), [])

    def test_missing_modules_are_found(self):
        self.assertNotEqual(self.found("src/base/a.cc", "", "project(x)"), [])


class SizesTest(TreeTest):
    def test_longest_file_passes(self):
        self.write("src/base/a.cc", "x\n" * check_sizes.MOST_LINES)
        self.assertEqual(check_sizes.problems(self.root), [])

    def test_one_line_more_is_found(self):
        self.write("tests/base/a_test.cc", "x\n" * (check_sizes.MOST_LINES + 1))
        self.assertIn("401 lines", check_sizes.problems(self.root)[0])

    def test_empty_tree_is_found(self):
        self.assertNotEqual(check_sizes.problems(self.root), [])


class DocsTest(TreeTest):
    def found(self, text):
        self.write("docs/method.md", text)
        self.write("src/nest/nest.h", "")
        self.write("tests/nest/a_test.cc", "TEST_F(KvCache, Shrinks) {}\n")
        return check_docs.problems(self.root)

    def test_names_that_are_there_pass(self):
        self.assertEqual(self.found("`KvCache.Shrinks` `nest/nest.h` `src/nest/nest.h` [a](method.md)"), [])

    def test_missing_test_is_found(self):
        self.assertIn("no test KvCache.Grows", self.found("`KvCache.Grows`")[0])

    def test_missing_file_is_found(self):
        self.assertIn("no file src/nest/gone.h", self.found("`nest/gone.h`")[0])

    def test_dead_link_is_found(self):
        self.assertIn("gone.md", self.found("[a](gone.md#part) [b](gone.md)")[0])

    def test_no_docs_are_found(self):
        self.assertNotEqual(check_docs.problems(self.root), [])


README = """
```sh
scripts/test.sh
build/release/bin/matryoshka eval kl MODEL --nest NEST \\
    --budget=25%   # a comment
```
`matryoshka old` in running text is not a call.
"""


class ReadmeTest(TreeTest):
    def found(self, status=0, text="Example: --nest NEST --budget B"):
        return list(check_readme.call_problems(README, lambda command: (status, text)))

    def test_calls_are_read(self):
        self.assertEqual(list(check_readme.matryoshka_calls(README)),
                         [(["eval", "kl"], ["--nest", "--budget"])])

    def test_right_help_passes(self):
        self.assertEqual(self.found(), [])

    def test_missing_command_is_found(self):
        self.assertIn("exits with 2", self.found(status=2)[0])

    def test_missing_example_is_found(self):
        self.assertIn("no example", self.found(text="--nest --budget")[0])

    def test_missing_option_is_found(self):
        self.assertIn("--budget", self.found(text="Example: --nest --budgets")[0])

    def test_missing_script_is_found(self):
        self.assertEqual(len(list(check_readme.script_problems(README, self.root))), 1)
        self.write("scripts/test.sh", "#!/bin/sh\n")
        (self.root / "scripts/test.sh").chmod(0o755)
        self.assertEqual(list(check_readme.script_problems(README, self.root)), [])


if __name__ == "__main__":
    unittest.main()
