# The name that programs find libsealcast by (rust/capi/build.rs); cargo makes no file of that name. For sdk/c and sdk/cpp.
ABI := $(shell sed -n 's/^.define SEALCAST_ABI_VERSION //p' $(ROOT)/sdk/c/include/sealcast.h)
ifeq ($(shell uname),Darwin)
LIBRARY := libsealcast.dylib
SONAME := libsealcast.$(ABI).dylib
else
LIBRARY := libsealcast.so
SONAME := $(LIBRARY).$(ABI)
endif

$(LIB_DIR)/$(SONAME):
	ln -sf $(LIBRARY) $@
