# find_package(sealcast) gives the targets sealcast::sealcast, sealcast::static and sealcast::curl.
get_filename_component(_prefix "${CMAKE_CURRENT_LIST_DIR}/../../.." ABSOLUTE)
find_package(Threads REQUIRED)

if(NOT TARGET sealcast::sealcast)
  add_library(sealcast::sealcast SHARED IMPORTED)
  set_target_properties(sealcast::sealcast PROPERTIES
    IMPORTED_LOCATION "${_prefix}/lib/libsealcast.so"
    INTERFACE_INCLUDE_DIRECTORIES "${_prefix}/include")

  add_library(sealcast::static STATIC IMPORTED)
  set_target_properties(sealcast::static PROPERTIES
    IMPORTED_LOCATION "${_prefix}/lib/libsealcast.a"
    INTERFACE_INCLUDE_DIRECTORIES "${_prefix}/include"
    INTERFACE_LINK_LIBRARIES "Threads::Threads;${CMAKE_DL_LIBS};m")

  # Of libcurl on OpenSSL; a project that makes its requests itself needs neither.
  find_package(CURL QUIET)
  find_package(OpenSSL QUIET)
  if(CURL_FOUND AND OPENSSL_FOUND)
    add_library(sealcast::curl STATIC IMPORTED)
    set_target_properties(sealcast::curl PROPERTIES
      IMPORTED_LOCATION "${_prefix}/lib/libsealcast-curl.a"
      INTERFACE_LINK_LIBRARIES "sealcast::sealcast;CURL::libcurl;OpenSSL::SSL;Threads::Threads")
  endif()
endif()
