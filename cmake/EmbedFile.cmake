# Run by mkv_embed: writes OUTPUT, which defines NAMESPACE::NAME as the text of FILE. Bytes, as a literal has a longest length.
file(READ ${FILE} bytes HEX)
string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${bytes}")
string(REGEX REPLACE "(0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,)" "\\1\n" bytes "${bytes}")
file(WRITE ${OUTPUT} "#include \"${HEADER}\"\n
namespace ${NAMESPACE} {
namespace {
constexpr unsigned char kBytes[] = {${bytes}};
}
extern const std::string_view ${NAME}{reinterpret_cast<const char*>(kBytes), sizeof kBytes};
}  // namespace ${NAMESPACE}
")
