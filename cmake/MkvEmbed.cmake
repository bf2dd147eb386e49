# mkv_embed(TARGET NAMESPACE HEADER FILES...): each file as a std::string_view of TARGET, in NAMESPACE, declared in HEADER; page.css
# becomes page_css. Remade when a file changes.
set(mkv_embed_script ${CMAKE_CURRENT_LIST_DIR}/EmbedFile.cmake)
function(mkv_embed target namespace header)
  foreach(file ${ARGN})
    get_filename_component(name ${file} NAME)
    string(REPLACE "." "_" name ${name})
    set(output ${CMAKE_BINARY_DIR}/embedded/${target}_${name}.cc)
    add_custom_command(
      OUTPUT ${output}
      COMMAND ${CMAKE_COMMAND} -DFILE=${file} -DNAME=${name} -DNAMESPACE=${namespace} -DHEADER=${header} -DOUTPUT=${output}
              -P ${mkv_embed_script}
      DEPENDS ${file} ${mkv_embed_script}
      VERBATIM)
    target_sources(${target} PRIVATE ${output})
  endforeach()
endfunction()
