# mkv_trainer: train_nest, with LibTorch or as an error that says how to get it. Torch comes as Debian's
# libtorch-dev or any newer build that CMAKE_PREFIX_PATH leads to; its headers stay out of our warnings and
# out of every other module, and its own compile options, which ask for an older C++, are not taken over.
if(MKV_WITH_TRAIN)
  file(GLOB trainer_sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/train/torch/*.cc)
else()
  file(GLOB trainer_sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/train/absent/*.cc)
endif()
if(MKV_WITH_TRAIN)
  find_package(Torch 1.13 REQUIRED)
  # Several processes need c10d's Gloo: Debian's LibTorch has it (its targets define USE_C10D_GLOO), and its header wants libgloo-dev's.
  include(CheckCXXSourceCompiles)
  include(CMakePushCheckState)
  cmake_push_check_state(RESET)
  set(CMAKE_REQUIRED_INCLUDES ${TORCH_INCLUDE_DIRS})
  set(CMAKE_REQUIRED_LIBRARIES torch torch_cpu c10)
  check_cxx_source_compiles("
    #include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
    #include <torch/csrc/distributed/c10d/TCPStore.hpp>
    int main() { return c10d::ProcessGroupGloo::createDeviceForHostname(\"127.0.0.1\") == nullptr; }" MKV_HAVE_GLOO)
  cmake_pop_check_state()
  if(MKV_HAVE_GLOO)
    list(APPEND trainer_sources ${CMAKE_SOURCE_DIR}/src/train/torch/gloo/process_group.cc)
  else()
    list(APPEND trainer_sources ${CMAKE_SOURCE_DIR}/src/train/torch/no_gloo/process_group.cc)
  endif()
endif()
add_library(mkv_trainer STATIC ${trainer_sources})
target_link_libraries(mkv_trainer PUBLIC mkv_train PRIVATE mkv_flags)
if(MKV_WITH_TRAIN)
  target_include_directories(mkv_trainer SYSTEM PUBLIC ${TORCH_INCLUDE_DIRS})
  target_link_libraries(mkv_trainer PUBLIC torch torch_cpu c10)
  target_precompile_headers(mkv_trainer PRIVATE <torch/torch.h>)
endif()
