// Every instruction set of this machine in turn, for the tests of all that has kernels.
#pragma once

#include <gtest/gtest.h>

#include <string>

#include "ops/instruction_set.h"

namespace mkv {

// fn() under each instruction set of this machine; the best one is back afterwards.
template <class Fn>
void for_each_instruction_set(const Fn& fn) {
  for (const std::string_view name : instruction_sets()) {
    SCOPED_TRACE(std::string(name));
    ASSERT_TRUE(set_instruction_set(name).has_value());
    ASSERT_EQ(instruction_set(), name);
    fn();
  }
  ASSERT_TRUE(set_instruction_set("auto").has_value());
}

}  // namespace mkv
