#pragma once

#include <gtest/gtest.h>

#include "ops/instruction_set.h"

namespace mkv {

// Runs `body` once for every instruction set of this machine.
template <class Body>
void for_each_target(const Body& body) {
  for (const std::string_view set : instruction_sets()) {
    ASSERT_TRUE(set_instruction_set(set));
    SCOPED_TRACE(set);
    body();
  }
  ASSERT_TRUE(set_instruction_set("auto"));
}

}  // namespace mkv
