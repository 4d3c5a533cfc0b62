# Settings for today's libraries that Makefile.config, or a copy of its example,
# lacks. Its own settings are kept if what they name exists.

comma := ,

# OpenCV 3 and newer read images with opencv_imgcodecs; Makefile tests for 3.
ifneq ($(OPENCV_VERSION), 2)
  override OPENCV_VERSION := 3
endif

# protobuf 22, CUDA 13 and Boost need C++17; Caffe does not compile as C++20.
ifeq ($(findstring -std=,$(CXX) $(CUSTOM_CXX) $(CXXFLAGS) $(COMMON_FLAGS)),)
  COMMON_FLAGS += -std=c++17
endif

# Folders of packages that the compiler does not search by itself.
TOOLCHAIN_CXX := $(if $(CUSTOM_CXX),$(CUSTOM_CXX),$(CXX))
TOOLCHAIN_ARCH := $(shell $(TOOLCHAIN_CXX) -print-multiarch 2>/dev/null)
INCLUDE_DIRS += $(wildcard /usr/include/opencv4 /usr/include/hdf5/serial)
LIBRARY_DIRS += $(wildcard /usr/lib/$(TOOLCHAIN_ARCH)/hdf5/serial)
COMMON_FLAGS += $(filter -I% -D%,\
  $(shell pkg-config --cflags protobuf libglog 2>/dev/null))

# From 22 on, protobuf's headers call Abseil, which must be linked, too.
LDFLAGS += $(filter -L% -labsl%,\
  $(shell pkg-config --libs protobuf 2>/dev/null))

# From 1.89 on, boost_system is header-only.
TOOLCHAIN_BOOST := $(shell echo BOOST_VERSION | $(TOOLCHAIN_CXX) \
  $(INCLUDE_DIRS:%=-I%) -include boost/version.hpp -E -P -x c++ - \
  2>/dev/null | tail -n 1)
TOOLCHAIN_GONE := $(shell \
  [ "$(TOOLCHAIN_BOOST)" -ge 108900 ] 2>/dev/null && echo boost_system)

# The installed Python, if there is no Python.h in PYTHON_INCLUDE. NumPy comes
# first, because Debian has a NumPy of its own beside Python.h.
PYTHON ?= python3
ifeq ($(wildcard $(PYTHON_INCLUDE:%=%/Python.h)),)
  PYTHON_VERSION := $(shell $(PYTHON) -c \
    'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
  PYTHON_LIBRARIES ?= \
    boost_python$(subst .,,$(PYTHON_VERSION)) python$(PYTHON_VERSION)
  INCLUDE_DIRS += $(shell $(PYTHON) -c 'import sysconfig, numpy; \
    print(numpy.get_include(), sysconfig.get_paths()["include"])' 2>/dev/null)
  LIBRARY_DIRS += $(shell $(PYTHON) -c 'import sysconfig; \
    print(sysconfig.get_config_var("LIBDIR"))' 2>/dev/null)
endif

# If CUDA_ARCH names an architecture that nvcc has dropped: all architectures
# that nvcc lists, and PTX of the last for future ones.
ifneq ($(CPU_ONLY), 1)
  NVCC_ARCHS := $(shell $(CUDA_DIR)/bin/nvcc --list-gpu-arch 2>/dev/null)
  ASKED_ARCHS := $(patsubst arch=%,%,$(filter arch=%,\
    $(subst $(comma), ,$(CUDA_ARCH))))
  ifneq ($(and $(NVCC_ARCHS),$(filter-out $(NVCC_ARCHS),$(ASKED_ARCHS))),)
    CUDA_ARCH := $(foreach arch,$(NVCC_ARCHS),\
      -gencode arch=$(arch)$(comma)code=$(arch:compute_%=sm_%)) \
      -gencode arch=$(lastword $(NVCC_ARCHS))$(comma)code=$(lastword $(NVCC_ARCHS))
  endif
endif
